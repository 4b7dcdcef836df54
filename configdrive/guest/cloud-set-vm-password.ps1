<#
.SYNOPSIS
Sets this VM's password and SSH keys as its config drive says, each once per change; or prints what the drive says.

.DESCRIPTION
UNTRIED ON WINDOWS: this script was parsed by a PowerShell grammar and read by people, and has not yet been run on a
Windows guest. Try it on a copy of your template first.

For templates of extdhcp; needs Windows PowerShell 5.1 and an administrator. Run it at each start of the machine:

  schtasks /Create /TN extdhcp /SC ONSTART /RU SYSTEM /TR ^
    "powershell -NoProfile -ExecutionPolicy Bypass -File C:\extdhcp\cloud-set-vm-password.ps1"

What it leaves in C:\ProgramData\extdhcp, which is SYSTEM's and the administrators' alone: status, what the last run
found and did (no secrets); password.USER, a salted digest of the password that was set last; keys, the SSH keys that
it installed.

Exit status: 0 done or nothing to do, 1 out of the ordinary, 3 not an administrator, 4 no drive with this label,
6 the drive does not have what you asked for, 7 password or keys could not be set.
SPDX-License-Identifier: Apache-2.0

.PARAMETER Label
The drive's volume label.

.PARAMETER Directory
The drive's root, if it is not to be looked for: D:\

.PARAMETER User
Whose password; the built-in administrator, whatever its name, if left out.

.PARAMETER NoKeys
Leave SSH keys alone.

.PARAMETER Print
Change nothing; print Metadata, UserData or Keys.
#>
[CmdletBinding()]
param(
    [ValidatePattern('^[A-Za-z0-9_-]{1,16}$')]
    [string] $Label = '@LABEL@',
    [string] $Directory = '',
    [string] $User = '',
    [switch] $NoKeys,
    [ValidateSet('', 'Metadata', 'UserData', 'Keys')]
    [string] $Print = ''
)

Set-StrictMode -Version 2.0
$ErrorActionPreference = 'Stop'

$State = Join-Path $env:ProgramData 'extdhcp'
# The server's reader takes the words below and nothing else.
$Report = @{
    version = '1'; script = 'windows'; label = $Label; drive = ''; instance_id = ''; user = $User
    password = ''; keys = ''; user_data_bytes = ''
}
$Utf8 = New-Object System.Text.UTF8Encoding($false)

function Write-Report {
    if (-not (Test-Path -LiteralPath $State)) { return }
    $Report['ran_at'] = (Get-Date).ToUniversalTime().ToString('yyyy-MM-ddTHH:mm:ssZ')
    $names = 'version', 'script', 'ran_at', 'label', 'drive', 'instance_id', 'user', 'password', 'keys', 'user_data_bytes'
    $lines = foreach ($name in $names) { '{0}={1}' -f $name, $Report[$name] }
    [System.IO.File]::WriteAllText((Join-Path $State 'status'), (($lines -join "`n") + "`n"), $Utf8)
}

function Stop-Script([int] $Code, [string] $Text) {
    if (-not $Print) { Write-Report }
    [Console]::Error.WriteLine("cloud-set-vm-password.ps1: $Text")
    exit $Code
}

# Every volume, with a drive letter or without, on a CD or a disk: the first CD need not be the config drive.
function Find-Drive {
    if ($Directory) { $roots = @($Directory) }
    else {
        $lettered = [System.IO.DriveInfo]::GetDrives() |
            Where-Object { $_.IsReady -and $_.VolumeLabel -eq $Label } |
            ForEach-Object { $_.RootDirectory.FullName }
        # Name is a drive letter's root or \\?\Volume{...}\
        $volumes = Get-CimInstance -ClassName Win32_Volume |
            Where-Object { $_.Label -eq $Label } |
            ForEach-Object { $_.Name }
        $roots = @($lettered) + @($volumes)
    }
    foreach ($root in $roots) {
        # Another volume may have the same label: the tree decides.
        if ($root -and [System.IO.Directory]::Exists([System.IO.Path]::Combine($root, 'cloudstack'))) { return $root }
    }
    return $null
}

function Find-File([string[]] $Names) {
    foreach ($name in $Names) {
        $path = [System.IO.Path]::Combine($Drive, $name)
        if ([System.IO.File]::Exists($path)) { return $path }
    }
    return $null
}

function Find-Metadata([string] $Name) {
    $older = 'cloudstack\metadata\{0}.txt' -f ($Name -replace '-', '_')
    $newer = 'cloudstack\metadata\{0}.txt' -f ($Name -replace '_', '-')
    return Find-File @($older, $newer)
}

function Find-UserData {
    return Find-File @('cloudstack\userdata\user_data.txt', 'cloudstack\userdata\userdata.txt', 'openstack\latest\user_data')
}

function Read-Keys {
    $path = Find-Metadata 'public-keys'
    if (-not $path) { return @() }
    return @([System.IO.File]::ReadAllLines($path, $Utf8) | ForEach-Object { $_.Trim() } | Where-Object { $_ })
}

# Password ----------------------------------------------------------------------------------------
# It is handed to methods and never to a cmdlet: PowerShell's module logging writes cmdlets' arguments to the event log.

function Read-Password {
    $path = Find-File @('cloudstack\password\vm_password.txt')
    if (-not $path) { return '' }
    $line = @([System.IO.File]::ReadAllLines($path, $Utf8))[0]
    # CloudStack's word for "it did not change".
    if ($line -ceq 'saved_password') { return '' }
    return $line
}

function Get-Digest([string] $Salt, [string] $Secret) {
    $hash = [System.Security.Cryptography.SHA256]::Create()
    $bytes = $hash.ComputeHash($Utf8.GetBytes($Salt + $Secret))
    return [System.BitConverter]::ToString($bytes).Replace('-', '').ToLowerInvariant()
}

function Test-Known([string] $Mark, [string] $Secret) {
    if (-not [System.IO.File]::Exists($Mark)) { return $false }
    $words = [System.IO.File]::ReadAllText($Mark).Trim().Split(' ')
    return ($words.Count -eq 2) -and ((Get-Digest $words[0] $Secret) -eq $words[1])
}

function Save-Mark([string] $Mark, [string] $Secret) {
    $random = New-Object byte[] 16
    [System.Security.Cryptography.RandomNumberGenerator]::Create().GetBytes($random)
    $salt = [System.BitConverter]::ToString($random).Replace('-', '').ToLowerInvariant()
    [System.IO.File]::WriteAllText($Mark, ('{0} {1}' -f $salt, (Get-Digest $salt $Secret)), $Utf8)
}

function Set-VmPassword {
    $secret = Read-Password
    if (-not $secret) { return 'absent' }
    $mark = Join-Path $State ('password.' + $Report['user'])
    if (Test-Known $mark $secret) { return 'unchanged' }
    try {
        $account = [ADSI] ('WinNT://{0}/{1},user' -f $env:COMPUTERNAME, $Report['user'])
        [void] $account.SetPassword($secret)
        [void] $account.SetInfo()
        Save-Mark $mark $secret
        return 'set'
    }
    catch {
        # The exception names the policy that refused, never the password.
        [Console]::Error.WriteLine('The password was not set: ' + $_.Exception.GetBaseException().Message)
        return 'failed'
    }
}

# SSH keys ----------------------------------------------------------------------------------------
# OpenSSH for Windows reads administrators' keys from one file, and only if SYSTEM and administrators alone may write it.

function Set-VmKeys {
    $wanted = @(Read-Keys)
    if ($wanted.Count -eq 0) { return 'absent' }
    $mark = Join-Path $State 'keys'
    $ours = @()
    if ([System.IO.File]::Exists($mark)) { $ours = @([System.IO.File]::ReadAllLines($mark, $Utf8)) }
    if (($ours -join "`n") -ceq ($wanted -join "`n")) { return 'unchanged' }
    try {
        $ssh = Join-Path $env:ProgramData 'ssh'
        if (-not [System.IO.Directory]::Exists($ssh)) { throw 'OpenSSH Server is not installed.' }
        $file = Join-Path $ssh 'administrators_authorized_keys'
        $kept = @()
        if ([System.IO.File]::Exists($file)) {
            $kept = @([System.IO.File]::ReadAllLines($file, $Utf8) |
                Where-Object { ($ours -cnotcontains $_) -and ($wanted -cnotcontains $_) })
        }
        [System.IO.File]::WriteAllLines($file, [string[]] (@($kept) + @($wanted)), $Utf8)
        Protect-Path $file
        [System.IO.File]::WriteAllLines($mark, [string[]] $wanted, $Utf8)
        return 'set'
    }
    catch {
        [Console]::Error.WriteLine('No SSH keys were installed: ' + $_.Exception.Message)
        return 'failed'
    }
}

# SYSTEM and the administrators, by their SIDs (the names are translated), and nobody by inheritance.
function Protect-Path([string] $Path) {
    $everything = ''
    if ([System.IO.Directory]::Exists($Path)) { $everything = '(OI)(CI)' }
    & icacls.exe $Path '/inheritance:r' '/grant:r' "*S-1-5-18:${everything}F" "*S-1-5-32-544:${everything}F" | Out-Null
    if ($LASTEXITCODE -ne 0) { throw "icacls could not protect $Path." }
}

# Printing ----------------------------------------------------------------------------------------

function Write-Bytes([string] $Path) {
    $bytes = [System.IO.File]::ReadAllBytes($Path)
    $out = [Console]::OpenStandardOutput()
    $out.Write($bytes, 0, $bytes.Length)
    $out.Flush()
}

function Show-Metadata {
    $directory = [System.IO.Path]::Combine($Drive, 'cloudstack\metadata')
    if (-not [System.IO.Directory]::Exists($directory)) { Stop-Script 6 'The drive has no metadata.' }
    [System.IO.Directory]::GetFiles($directory, '*.txt') |
        ForEach-Object { [System.IO.Path]::GetFileNameWithoutExtension($_).ToLowerInvariant() -replace '_', '-' } |
        Where-Object { $_ -ne 'public-keys' } |
        Sort-Object -Unique |
        ForEach-Object { '{0}={1}' -f $_, [System.IO.File]::ReadAllText((Find-Metadata $_), $Utf8).TrimEnd() }
}

function Show-Part {
    if ($Print -eq 'Metadata') { Show-Metadata; return }
    if ($Print -eq 'UserData') { $path = Find-UserData } else { $path = Find-Metadata 'public-keys' }
    if (-not $path) { Stop-Script 6 "The drive has no $Print." }
    Write-Bytes $path
}

# -------------------------------------------------------------------------------------------------

function Test-Administrator {
    $identity = [System.Security.Principal.WindowsIdentity]::GetCurrent()
    $principal = New-Object System.Security.Principal.WindowsPrincipal($identity)
    return $principal.IsInRole([System.Security.Principal.WindowsBuiltInRole]::Administrator)
}

# Its name is translated and may have been changed; its SID always ends with 500.
function Get-BuiltInAdministrator {
    $accounts = Get-CimInstance -ClassName Win32_UserAccount -Filter 'LocalAccount = TRUE'
    return ($accounts | Where-Object { $_.SID -like 'S-1-5-21-*-500' } | Select-Object -First 1).Name
}

function Read-Facts {
    $Report['drive'] = $Drive -replace '[^A-Za-z0-9:\\/._-]', ''
    $path = Find-Metadata 'instance-id'
    if ($path) { $Report['instance_id'] = [System.IO.File]::ReadAllText($path) -replace '[^A-Za-z0-9._-]', '' }
    $Report['user_data_bytes'] = '0'
    $path = Find-UserData
    if ($path) { $Report['user_data_bytes'] = [string] (New-Object System.IO.FileInfo($path)).Length }
}

$Drive = $null
if (-not $Print) {
    if (-not (Test-Administrator)) { Stop-Script 3 'Only an administrator can set passwords. Run this as one.' }
    [void] [System.IO.Directory]::CreateDirectory($State)
    Protect-Path $State
    if (-not $Report['user']) { $Report['user'] = Get-BuiltInAdministrator }
}
$Drive = Find-Drive
if (-not $Drive) {
    Stop-Script 4 "No volume with the label '$Label' holds a config drive. Is it attached? Another label: -Label, or -Directory D:\"
}
if ($Print) {
    Show-Part
    exit 0
}
Read-Facts
$Report['password'] = Set-VmPassword
if (-not $NoKeys) { $Report['keys'] = Set-VmKeys }
Write-Report
Write-Output ('password: {0}, SSH keys: {1}, user: {2}, drive: {3}' -f $Report['password'], $Report['keys'], $Report['user'], $Drive)
if (($Report['password'], $Report['keys']) -contains 'failed') { exit 7 }
exit 0
