// A vCenter or a lone ESXi for tests: govmomi's simulator, and around it what the tests need and it lacks.
//
// It prints one line of JSON when it serves, and ends when its standard input does. What it does not model is said in
// the Python package's docstring.
package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"io"
	"io/ioutil"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"reflect"
	"regexp"
	"sort"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

var (
	listen     = flag.String("listen", "127.0.0.2:0", "address and port; port 0 takes a free one")
	user       = flag.String("user", "operator", "who may log in")
	password   = flag.String("password", "secret", "with what password")
	esx        = flag.Bool("esx", false, "be a lone ESXi")
	hosts      = flag.Int("hosts", 2, "hosts in the cluster")
	vms        = flag.Int("vms", 3, "running VMs that others made")
	datastores = flag.Int("datastores", 2, "datastores that every host mounts")
	delay      = flag.Int("delay", 0, "milliseconds that every call takes longer")
	addresses  = flag.Bool("addresses", false, "the guests of those VMs run tools and have an address")
)

func main() {
	flag.Parse()
	log.SetOutput(ioutil.Discard) // the simulator logs every request
	model := simulator.VPX()
	if *esx {
		model = simulator.ESX()
	} else {
		model.Host, model.Cluster, model.ClusterHost = 0, 1, *hosts
	}
	model.Machine, model.Datastore = *vms, *datastores
	must(model.Create())
	defer model.Remove()
	// Not while the inventory is made: the simulator asks itself thousands of times.
	model.DelayConfig.Delay = *delay
	makeGuests()
	if !*esx {
		makeTemplate("template-ide", false)
		makeTemplate("template-sata", true)
	}

	certificate, authority := newCertificate()
	model.Service.Listen = &url.URL{Host: *listen, User: url.UserPassword(*user, *password)}
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	server := model.Service.NewServer()
	around := &surroundings{inner: server.Config.Handler, calls: map[string]int{}, cookies: map[string]bool{}, pages: map[string]rest{}}
	server.Config.Handler = around

	host, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	must(json.NewEncoder(os.Stdout).Encode(map[string]string{
		"host": host, "port": port, "user": *user, "password": *password, "ca_certificates": authority,
	}))
	_, _ = io.Copy(ioutil.Discard, os.Stdin) // its end says that nobody wants us any more
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func newCertificate() (tls.Certificate, string) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	name, _, _ := net.SplitHostPort(*listen)
	serial, _ := rand.Int(rand.Reader, big.NewInt(1<<62))
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "vcenter simulator"},
		NotBefore:    time.Now().Add(-time.Hour),
		NotAfter:     time.Now().Add(24 * time.Hour),
		KeyUsage:     x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses:  []net.IP{net.ParseIP(name)},
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(err)
	text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, string(text)
}

// The inventory ---------------------------------------------------------------------------------

func allVMs() []*simulator.VirtualMachine {
	var found []*simulator.VirtualMachine
	for _, entity := range simulator.Map.All("VirtualMachine") {
		found = append(found, entity.(*simulator.VirtualMachine))
	}
	sort.Slice(found, func(i, j int) bool { return found[i].Name < found[j].Name })
	return found
}

func makeGuests() {
	for number, vm := range allVMs() {
		ownDevices(vm)
		for _, device := range vm.Config.Hardware.Device {
			if card, is := device.(types.BaseVirtualEthernetCard); is {
				mac := fmt.Sprintf("00:50:56:%02x:%02x:%02x", number>>16, number>>8&255, number&255)
				card.GetVirtualEthernetCard().MacAddress = mac
			}
		}
		syncGuestNet(vm)
		if *addresses && len(vm.Guest.Net) > 0 {
			ip := fmt.Sprintf("10.%d.%d.%d", number>>16+1, number>>8&255, number&255)
			setGuest(vm, guest{
				Tools:     string(types.VirtualMachineToolsRunningStatusGuestToolsRunning),
				Version:   string(types.VirtualMachineToolsVersionStatusGuestToolsCurrent),
				IP:        ip,
				Addresses: map[string][]string{vm.Guest.Net[0].MacAddress: {ip + "/16", "fe80::250:56ff:fe00:1/64"}},
			})
		}
	}
}

// ownDevices gives a VM devices that it shares with no other, as the simulator's do.
func ownDevices(vm *simulator.VirtualMachine) {
	for number, device := range vm.Config.Hardware.Device {
		original := reflect.ValueOf(device).Elem()
		copied := reflect.New(original.Type())
		copied.Elem().Set(original)
		vm.Config.Hardware.Device[number] = copied.Interface().(types.BaseVirtualDevice)
	}
}

// makeTemplate makes a template with a disk of 1 GiB and a NIC, and with a SATA controller if wanted.
func makeTemplate(name string, sata bool) {
	host := simulator.Map.Any("HostSystem").(*simulator.HostSystem)
	pool := simulator.Map.Any("ResourcePool").(*simulator.ResourcePool)
	datacenter := simulator.Map.Any("Datacenter").(*simulator.Datacenter)
	folder := simulator.Map.Get(datacenter.VmFolder).(*simulator.Folder)
	ctx := &simulator.Context{Map: simulator.Map, Session: &simulator.Session{Registry: simulator.NewRegistry()}}
	scsi, disk := int32(1000), int32(2000)
	changes := []types.BaseVirtualDeviceConfigSpec{
		&types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationAdd,
			Device: &types.ParaVirtualSCSIController{VirtualSCSIController: types.VirtualSCSIController{
				SharedBus:         types.VirtualSCSISharingNoSharing,
				VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: scsi}},
			}},
		},
		&types.VirtualDeviceConfigSpec{
			Operation:     types.VirtualDeviceConfigSpecOperationAdd,
			FileOperation: types.VirtualDeviceConfigSpecFileOperationCreate,
			Device: &types.VirtualDisk{
				VirtualDevice: types.VirtualDevice{
					Key: disk, ControllerKey: scsi, UnitNumber: types.NewInt32(0),
					Backing: &types.VirtualDiskFlatVer2BackingInfo{ThinProvisioned: types.NewBool(true)},
				},
				CapacityInKB: 1024 * 1024, CapacityInBytes: 1 << 30,
			},
		},
		&types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationAdd,
			Device: &types.VirtualVmxnet3{VirtualVmxnet: types.VirtualVmxnet{VirtualEthernetCard: types.VirtualEthernetCard{
				VirtualDevice: types.VirtualDevice{
					Key:     4000,
					Backing: &types.VirtualEthernetCardNetworkBackingInfo{VirtualDeviceDeviceBackingInfo: types.VirtualDeviceDeviceBackingInfo{DeviceName: "VM Network"}},
				},
			}}},
		},
	}
	if sata {
		changes = append(changes, &types.VirtualDeviceConfigSpec{
			Operation: types.VirtualDeviceConfigSpecOperationAdd,
			Device: &types.VirtualAHCIController{VirtualSATAController: types.VirtualSATAController{
				VirtualController: types.VirtualController{VirtualDevice: types.VirtualDevice{Key: 15000}},
			}},
		})
	}
	folder.CreateVMTask(ctx, &types.CreateVM_Task{
		This: folder.Self,
		Config: types.VirtualMachineConfigSpec{
			Name: name, GuestId: string(types.VirtualMachineGuestOsIdentifierOtherLinux64Guest),
			Files:        &types.VirtualMachineFileInfo{VmPathName: "[LocalDS_0]"},
			DeviceChange: changes,
		},
		Pool: pool.Self,
		Host: &host.Self,
	})
	template := findVM(func(vm *simulator.VirtualMachine) bool { return vm.Name == name })
	if template == nil {
		must(fmt.Errorf("the template %s could not be made", name))
	}
	template.MarkAsTemplate(&types.MarkAsTemplate{This: template.Self})
}

func findVM(is func(*simulator.VirtualMachine) bool) *simulator.VirtualMachine {
	for _, vm := range allVMs() {
		if is(vm) {
			return vm
		}
	}
	return nil
}

// guest is what a test lets a guest's tools say. Addresses are by MAC, each with its prefix ("10.0.0.1/24").
type guest struct {
	UUID      string              `json:"uuid"`
	Tools     string              `json:"tools"`
	Version   string              `json:"version"`
	IP        string              `json:"ip"`
	Addresses map[string][]string `json:"addresses"`
}

func setGuest(vm *simulator.VirtualMachine, said guest) {
	devices := map[string]int32{}
	for _, nic := range vm.Guest.Net {
		devices[strings.ToLower(nic.MacAddress)] = nic.DeviceConfigId
	}
	nics := []types.GuestNicInfo{}
	for mac, texts := range said.Addresses {
		device, plugged := devices[strings.ToLower(mac)]
		if !plugged {
			device = -1 // what vSphere says of an interface that only the guest has
		}
		nic := types.GuestNicInfo{MacAddress: mac, Connected: true, DeviceConfigId: device, IpConfig: &types.NetIpConfigInfo{}}
		for _, text := range texts {
			ip, network, err := net.ParseCIDR(text)
			if err != nil {
				continue
			}
			length, _ := network.Mask.Size()
			nic.IpAddress = append(nic.IpAddress, ip.String())
			nic.IpConfig.IpAddress = append(nic.IpConfig.IpAddress, types.NetIpConfigInfoIpAddress{
				IpAddress: ip.String(), PrefixLength: int32(length), State: "preferred",
			})
		}
		nics = append(nics, nic)
	}
	changes := []types.PropertyChange{
		{Name: "guest.toolsRunningStatus", Val: said.Tools},
		{Name: "guest.toolsVersionStatus2", Val: said.Version},
		{Name: "guest.ipAddress", Val: said.IP},
		{Name: "guest.net", Val: nics},
	}
	simulator.Map.WithLock(vm, func() { simulator.Map.Update(vm, changes) })
}

// syncGuestNet lets the guest see the NICs that the VM has: the simulator never forgets one.
func syncGuestNet(vm *simulator.VirtualMachine) {
	known := map[string]types.GuestNicInfo{}
	for _, nic := range vm.Guest.Net {
		known[strings.ToLower(nic.MacAddress)] = nic
	}
	nics := []types.GuestNicInfo{}
	for _, device := range vm.Config.Hardware.Device {
		if card, is := device.(types.BaseVirtualEthernetCard); is {
			mac := strings.ToLower(card.GetVirtualEthernetCard().MacAddress)
			nic := known[mac]
			nic.MacAddress, nic.DeviceConfigId, nic.Connected = mac, card.GetVirtualEthernetCard().Key, true
			nics = append(nics, nic)
		}
	}
	simulator.Map.Update(vm, []types.PropertyChange{{Name: "guest.net", Val: nics}})
}

// Around the simulator --------------------------------------------------------------------------

type surroundings struct {
	inner   http.Handler
	lock    sync.Mutex
	calls   map[string]int
	cookies map[string]bool
	pages   map[string]rest
}

var (
	method = regexp.MustCompile(`<(?:\w+:)?Body[^>]*>\s*<(?:\w+:)?(\w+)`)
	vmID   = regexp.MustCompile(`<_this [^>]*type="VirtualMachine"[^>]*>([^<]+)</_this>`)
)

const cookieName = "vmware_soap_session"

func (s *surroundings) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasPrefix(r.URL.Path, "/simulator/"):
		s.control(w, r)
	case strings.HasPrefix(r.URL.Path, "/folder/"):
		s.folder(w, r)
	default:
		s.sdk(w, r)
	}
}

// folder asks for a session, as vCenter does and the simulator does not.
func (s *surroundings) folder(w http.ResponseWriter, r *http.Request) {
	cookie, err := r.Cookie(cookieName)
	s.lock.Lock()
	known := err == nil && s.cookies[strings.Trim(cookie.Value, `"`)]
	s.calls[r.Method+" /folder"]++
	s.lock.Unlock()
	if !known {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	s.inner.ServeHTTP(w, r)
}

func (s *surroundings) sdk(w http.ResponseWriter, r *http.Request) {
	body, _ := ioutil.ReadAll(r.Body)
	r.Body = ioutil.NopCloser(bytes.NewReader(body))
	name := ""
	if found := method.FindSubmatch(body); found != nil {
		name = string(found[1])
	}
	s.lock.Lock()
	s.calls[name]++
	s.lock.Unlock()
	if s.nextPage(w, name, body) {
		return
	}
	answer := httptest.NewRecorder()
	s.inner.ServeHTTP(answer, r)
	for key, values := range answer.Header() {
		w.Header()[key] = values
	}
	w.WriteHeader(answer.Code)
	_, _ = w.Write(s.firstPage(name, body, answer.Body.Bytes()))
	for _, cookie := range (&http.Response{Header: w.Header()}).Cookies() {
		if cookie.Name == cookieName {
			s.lock.Lock()
			s.cookies[cookie.Value] = true
			s.lock.Unlock()
		}
	}
	if id := vmID.FindSubmatch(body); name == "ReconfigVM_Task" && id != nil {
		tellReconfigured(string(id[1]))
	}
}

// tellReconfigured has collectors hear of what ReconfigVM_Task changes: the simulator tells of devices only.
func tellReconfigured(id string) {
	ref := types.ManagedObjectReference{Type: "VirtualMachine", Value: id}
	vm, is := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	if !is {
		return
	}
	simulator.Map.WithLock(vm, func() {
		syncGuestNet(vm)
		simulator.Map.Update(vm, []types.PropertyChange{
			{Name: "name", Val: vm.Name},
			{Name: "config.uuid", Val: vm.Config.Uuid},
			{Name: "config.instanceUuid", Val: vm.Config.InstanceUuid},
		})
	})
}

// Pages ------------------------------------------------------------------------------------------

// rest is what of an answer has not been told yet: around the objects stand its head and its foot.
type rest struct {
	head, foot []byte
	objects    [][]byte
	most       int
}

// paging says how an answer that lists objects is cut.
type paging struct{ most, object, token string }

var pagings = map[string]paging{
	"RetrievePropertiesEx":         {"maxObjects", "objects", "token"},
	"ContinueRetrievePropertiesEx": {"maxObjects", "objects", "token"},
	"WaitForUpdatesEx":             {"maxObjectUpdates", "objectSet", "version"},
}

func element(name string, document []byte) []byte {
	found := regexp.MustCompile("<" + name + "(?: [^>]*)?>([^<]*)</" + name + ">").FindSubmatch(document)
	if found == nil {
		return nil
	}
	return found[1]
}

// firstPage cuts an answer that has more objects than were asked for, and keeps the rest.
func (s *surroundings) firstPage(name string, request, answer []byte) []byte {
	kind, is := pagings[name]
	most := 0
	_, _ = fmt.Sscan(string(element(kind.most, request)), &most)
	opening, closing := []byte("<"+kind.object+">"), []byte("</"+kind.object+">")
	first, last := bytes.Index(answer, opening), bytes.LastIndex(answer, closing)
	if !is || most == 0 || first < 0 || bytes.Count(answer, opening) <= most {
		return answer
	}
	whole := rest{answer[:first], answer[last+len(closing):], bytes.SplitAfter(answer[first:last+len(closing)], closing), most}
	whole.objects = whole.objects[:len(whole.objects)-1] // what follows the last one is the foot
	return s.cut(kind, whole)
}

func (s *surroundings) cut(kind paging, whole rest) []byte {
	if len(whole.objects) <= whole.most {
		return bytes.Join([][]byte{whole.head, bytes.Join(whole.objects, nil), whole.foot}, nil)
	}
	s.lock.Lock()
	token := fmt.Sprintf("page-%d", time.Now().UnixNano())
	s.pages[token] = rest{whole.head, whole.foot, whole.objects[whole.most:], whole.most}
	s.lock.Unlock()
	page := bytes.Join([][]byte{whole.head, bytes.Join(whole.objects[:whole.most], nil), whole.foot}, nil)
	if kind.token == "version" {
		version := regexp.MustCompile("<version>[^<]*</version>")
		return version.ReplaceAll(page, []byte("<version>"+token+"</version><truncated>true</truncated>"))
	}
	return bytes.Replace(page, []byte("<objects>"), []byte("<token>"+token+"</token><objects>"), 1)
}

// nextPage answers a call that goes on with an answer that was cut.
func (s *surroundings) nextPage(w http.ResponseWriter, name string, request []byte) bool {
	kind := pagings[name]
	token := string(element(kind.token, request))
	s.lock.Lock()
	whole, is := s.pages[token] // kept: who did not get it asks again
	s.lock.Unlock()
	if !is {
		return false
	}
	time.Sleep(time.Duration(*delay) * time.Millisecond)
	answer := s.cut(kind, whole)
	if name == "ContinueRetrievePropertiesEx" {
		answer = bytes.ReplaceAll(answer, []byte("RetrievePropertiesExResponse"), []byte(name+"Response"))
	}
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	_, _ = w.Write(answer)
	return true
}

func (s *surroundings) control(w http.ResponseWriter, r *http.Request) {
	switch strings.TrimPrefix(r.URL.Path, "/simulator/") {
	case "calls": // how often each method was called; DELETE begins anew
		s.lock.Lock()
		defer s.lock.Unlock()
		if r.Method == http.MethodDelete {
			s.calls = map[string]int{}
		}
		_ = json.NewEncoder(w).Encode(s.calls)
	case "guest":
		var said guest
		if json.NewDecoder(r.Body).Decode(&said) != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		vm := findVM(func(vm *simulator.VirtualMachine) bool { return vm.Config.Uuid == said.UUID })
		if vm == nil {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		setGuest(vm, said)
	case "datastore": // ?name=...&free=bytes
		for _, entity := range simulator.Map.All("Datastore") {
			datastore := entity.(*simulator.Datastore)
			if datastore.Name == r.URL.Query().Get("name") {
				var free int64
				_, _ = fmt.Sscan(r.URL.Query().Get("free"), &free)
				summary := datastore.Summary
				summary.FreeSpace = free
				simulator.Map.Update(datastore, []types.PropertyChange{{Name: "summary", Val: summary}})
			}
		}
	case "hosts":
		names := []string{}
		for _, entity := range simulator.Map.All("HostSystem") {
			names = append(names, entity.(*simulator.HostSystem).Name)
		}
		_ = json.NewEncoder(w).Encode(names)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}
