// `node scenario_csclient.js NAME` with csclient: what the client makes of it, as JSON.
'use strict';

const { promisify } = require('node:util');
const CSClient = require('csclient');

const cloud = new CSClient({
  apiKey: process.env.CLOUDSTACK_KEY,
  secretKey: process.env.CLOUDSTACK_SECRET,
  baseUrl: `${process.env.CLOUDSTACK_ENDPOINT}?`,
  singleExecutor: process.argv[2] !== 'wrong_key',
});
const call = promisify((command, parameters, done) => cloud.execute(command, parameters, done));
const first = async (command, word, parameters) =>
  (await call(command, parameters))[`${command.toLowerCase()}response`][word][0].id;

async function refusal(command, parameters) {
  try {
    return { answered: await call(command, parameters) };
  } catch (error) {
    return { code: error.code, text: error.message };
  }
}

const scenarios = {
  async pages() {
    const ids = [];
    for (const page of [1, 2, 3]) {
      const answer = (await call('listVirtualMachines', { page, pagesize: 250 })).listvirtualmachinesresponse;
      ids.push(...answer.virtualmachine.map((vm) => vm.id));
    }
    return { rows: ids.length, names: new Set(ids).size };
  },
  wrong_key: () => refusal('listVirtualMachines', {}),
  unknown_command: () => refusal('plantTree', {}),
  async failing_job() {
    return refusal('deployVirtualMachine', {
      name: `too-large-${process.pid}`,
      zoneid: await first('listZones', 'zone', {}),
      templateid: await first('listTemplates', 'template', { templatefilter: 'executable' }),
      serviceofferingid: await first('listServiceOfferings', 'serviceoffering', { name: 'Larger than any host' }),
      networkids: await first('listNetworks', 'network', { keyword: 'corporate-100' }),
    });
  },
};

cloud.on('ready', async () => console.log(JSON.stringify(await scenarios[process.argv[2]]())));
