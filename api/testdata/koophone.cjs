// What a program of KooPhone's does around a reset, with the core of Huawei Cloud's SDK for Node.js. The
// SDK has no KooPhone client: the four requests are those of the SDK for Java.
const { BasicCredentials } = require('@huaweicloud/huaweicloud-sdk-core');
const { ClientBuilder } = require('@huaweicloud/huaweicloud-sdk-core/ClientBuilder');

class KooPhone {
  constructor(client) { this.client = client; }
  static builder() { return new ClientBuilder((client) => new KooPhone(client)); }
  send(method, url, { query = {}, path = {}, body } = {}) {
    return this.client.sendRequest({
      method, url, contentType: 'application/json', queryParams: query, pathParams: path, headers: {}, data: body,
    });
  }
}

async function main() {
  const { ENDPOINT, AK, SK } = process.env;
  const credentials = new BasicCredentials().withAk(AK).withSk(SK).withProjectId('any');
  const phones = KooPhone.builder().withCredential(credentials).withEndpoint(ENDPOINT).build();
  const two = { instance_ids: ['phone-1', 'phone-2'] };
  const listed = await phones.send('GET', '/v1/instances/batch-query', { query: { 'x-request-id': 'R1', page_no: '1', page_size: '10' } });
  const reset = await phones.send('POST', '/v1/instances/batch-reset', { body: two });
  const task = await phones.send('GET', '/v1/instances/tasks/{task_id}', { path: { task_id: reset.data.task_id } });
  const states = await phones.send('POST', '/v1/instances/batch-query-status', { body: two });
  const wrong = KooPhone.builder().withCredential(new BasicCredentials().withAk(AK).withSk('wrong').withProjectId('any')).withEndpoint(ENDPOINT).build();
  let refused = {};
  try {
    await wrong.send('POST', '/v1/instances/batch-reset', { body: two });
  } catch (e) {
    refused = { status: e.httpStatusCode, code: e.errorCode, message: e.errorMsg };
  }
  console.log(JSON.stringify({
    total: listed.data.total_count, jobs: reset.data.cmd_jobs.length, task: task.data.jobs.map((j) => j.status),
    states: states.data.status_results.map((s) => s.status), refused,
  }));
}

main().catch((e) => { console.error(e); process.exit(1); });
