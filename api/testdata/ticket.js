// Follows a job from a page of another origin, as a browser does.
// Arguments: URL of the API, of a page whose origin the API knows, of the same page under a name
// that it does not know, and a job of the tenant acme with one instance that waits.
const { chromium } = require('playwright-core')
const assert = require('node:assert/strict')

const [api, page, stranger, job] = process.argv.slice(2)

// follow runs in the page.
async function follow([api, job]) {
  const headers = { 'X-Auth-Token': 'acme' }
  const answer = await fetch(`${api}/v1/jobs/${job}/ticket`, { method: 'POST', headers })
  const { data: { ticket } } = await answer.json()
  const seen = []
  const stream = new EventSource(`${api}/v1/jobs/${job}/events?ticket=${ticket}`)
  await new Promise(resolve => {
    stream.addEventListener('job', async event => {
      const { state } = JSON.parse(event.data)
      seen.push(state)
      if (state === 'pending') await fetch(`${api}/v1/jobs/${job}/cancel`, { method: 'POST', headers })
    })
    // The stream ends with the last event. The browser comes back, and is told that there is no more.
    stream.addEventListener('error', () => { if (stream.readyState === EventSource.CLOSED) resolve() })
  })
  const record = await fetch(`${api}/v1/jobs/${job}`, { headers })
  return { seen, etag: record.headers.get('ETag'), other: record.headers.get('Cache-Control') }
}

async function run() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] })
  try {
    const tab = await browser.newPage()
    const answers = []
    tab.on('response', r => { if (r.url().startsWith(api)) answers.push(`${r.request().method()} ${r.status()}`) })
    await tab.goto(stranger)
    assert.match(await tab.evaluate(follow, [api, job]).catch(String), /Failed to fetch/)
    await tab.goto(page)
    const { seen, etag } = await tab.evaluate(follow, [api, job])
    assert.deepEqual(seen, ['pending', 'cancelled'])
    assert.match(etag, /^"/)
    assert.ok(answers.includes('GET 204'), `it has not come back: ${answers}`)
  } finally {
    await browser.close()
  }
}

run().catch(e => {
  console.error(e)
  process.exit(1)
})
