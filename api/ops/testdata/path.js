// Goes to every page of the operators' site that its own links lead to, below a path.
// Arguments: URL of the site, password of alice (operator), and a job of the tenant acme.
const assert = require('node:assert/strict')
const { tell, desktop, logIn } = require('./site')

const [url, password, job] = process.argv.slice(2)

const told = !url.endsWith('/elsewhere') // the site where it is, without which the dashboard is not found

async function everywhere({ page, shot, press, unheard }) {
  const failed = []
  page.on('requestfailed', r => {
    const reason = r.failure().errorText
    if (reason !== 'net::ERR_ABORTED') failed.push(`${r.url()}: ${reason}`) // that is what was under way when its page was left
  })
  page.on('response', r => { if (r.status() >= 400) failed.push(`${r.url()}: ${r.status()}`) })
  await logIn(page, url + '/', 'alice', password)
  const seen = new Set(); const todo = [url + '/']; const queries = new Map()
  while (todo.length) {
    const address = todo.pop().split('#')[0]
    if (seen.has(address)) continue
    seen.add(address)
    const [path, query] = address.split('?') // lists with each of their filters look alike
    queries.set(path, (queries.get(path) ?? 0) + (query ? 1 : 0))
    if (queries.get(path) > 2) continue
    await page.goto(address)
    const leads = await page.evaluate(() => [...document.querySelectorAll(':not(base)[href], [src], [action]')].flatMap(e =>
      ['href', 'src', 'action'].filter(a => e.hasAttribute(a)).map(a => new URL(e.getAttribute(a), document.baseURI).href)))
    for (const to of leads) {
      if (to.startsWith('https://traces.example/') || to.startsWith('data:')) continue
      assert.ok(to.startsWith(url + '/'), `${address} leads to ${to}`)
    }
    const pages = await page.evaluate(() => [...document.querySelectorAll('a:not([download])')].map(e => e.href))
    todo.push(...pages.filter(to => to.startsWith(url + '/') && !/\/(asynq|debug|metrics)/.test(to)))
  }
  for (const path of ['/', '/runs', '/jobs', '/failures', '/approvals', '/tenants', '/tenants/~', '/fleet', '/callers', '/webhooks', '/audit', `/jobs/${job}`, `/jobs/${job}/cancel`, '/instances/phone-1', '/tenants/halt?all=true']) {
    assert.ok(seen.has(url + path), `no link leads to ${path}, only to ${[...seen].join(', ')}`)
  }
  for (const path of ['/debug/pprof/', '/debug/pprof/goroutine?debug=1', '/metrics']) await page.goto(url + path)

  if (told) await unheard(async () => dashboard(page, shot, failed))
  await page.goto(`${url}/jobs/${job}/cancel`)
  await press('button', 'Cancel 2 instances')
  assert.equal(page.url(), `${url}/jobs/${job}`)
  await page.locator('.tiles a').first().click()
  assert.equal(page.url(), `${url}/jobs/${job}#item-0`)
  await shot('below')
  await page.getByRole('searchbox').fill('phone-1')
  await press('button', 'Find')
  assert.equal(page.url(), `${url}/instances/phone-1`)
  assert.deepEqual(failed, [])
  await page.goto(url + '/')
  await press('button', 'Log out')
  assert.equal(page.url(), url + '/login')
}

// dashboard goes from an item that waits to its task on asynq's dashboard, and on from there.
async function dashboard(page, shot, failed) {
  await page.goto(`${url}/jobs/${job}/items/1`)
  await page.getByRole('link', { name: 'its task', exact: true }).click()
  await page.getByText('Task Info').waitFor()
  await page.getByText('phone-2').first().waitFor()
  const leads = await page.evaluate(() => [...document.querySelectorAll('a[href]')].map(e => e.href))
  for (const to of leads) assert.ok(to.startsWith(url + '/') || /^https:\/\/github\.com\/hibiken/.test(to), `the dashboard leads to ${to}`)
  await shot('task')
  assert.ok(leads.some(to => to === url + '/asynq/'), `the dashboard leads to ${leads}`)
  await page.locator('a[href$="/asynq/"]').first().click()
  await page.getByText('reset-0').first().waitFor()
  await shot('queues')
  await page.reload()
  await page.getByText('reset-0').first().waitFor()
  // Its fonts are on another server: our policy forbids that, and it does without.
  const fonts = failed.filter(f => f.startsWith('https://fonts.googleapis.com/'))
  failed.splice(0, failed.length, ...failed.filter(f => !fonts.includes(f)))
}

tell(url, [{ name: 'path', options: desktop, story: everywhere }])
