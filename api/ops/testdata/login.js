// Logs in and out of the operators' site as people do.
// Arguments: URL of the site, password of alice (operator) and vera (viewer), and a job of the
// tenant acme with one instance that failed and two that wait.
const { chromium } = require('playwright-core')
const { source: axe } = require('axe-core')
const assert = require('node:assert/strict')
const path = require('node:path')

const [url, password, job] = process.argv.slice(2)

async function main() {
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM, args: ['--no-sandbox'] })
  try {
    await withPage(browser, 'desktop', { viewport: { width: 1280, height: 800 } }, operator)
    await withPage(browser, 'dark-phone', { viewport: { width: 390, height: 844 }, colorScheme: 'dark' }, viewer)
  } finally {
    await browser.close()
  }
}

// withPage opens a page for a story, and fails if it writes an error to the console, or asks
// somebody else for something.
async function withPage(browser, name, options, story) {
  const context = await browser.newContext({ ...options, bypassCSP: false })
  const page = await context.newPage()
  const wrong = []
  let ours = true // asynqmon's pages ask for fonts, which their policy forbids
  page.on('console', m => { if (ours && m.type() === 'error' && !/status of 4\d\d/.test(m.text())) wrong.push(m.text()) })
  page.on('pageerror', e => wrong.push(String(e)))
  page.on('response', r => { if (!r.url().startsWith(url)) wrong.push('answered by ' + r.url()) })
  const shot = async what => {
    if (process.env.SCREENSHOTS) await page.screenshot({ path: path.join(process.env.SCREENSHOTS, `ops-${name}-${what}.png`) })
  }
  const asynqmon = async f => {
    ours = false
    await f()
    ours = true
  }
  await story({ page, shot, asynqmon })
  await context.close()
  assert.deepEqual(wrong, [])
}

// accessible fails at a serious fault. axe runs in a page of its own, because ours allows no script.
async function accessible(page) {
  const context = await page.context().browser().newContext({ bypassCSP: true, viewport: page.viewportSize() })
  const copy = await context.newPage()
  await context.addCookies(await page.context().cookies())
  await copy.goto(page.url())
  await copy.evaluate(axe)
  const { violations } = await copy.evaluate(() => globalThis.axe.run())
  await context.close()
  const serious = violations.filter(v => ['serious', 'critical'].includes(v.impact))
  assert.deepEqual(serious.map(v => `${v.id}: ${v.help}: ${v.nodes.map(n => n.html)}`), [])
}

async function fits(page) {
  assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'the page is wider than the screen')
}

// fill works as somebody without a mouse does.
async function fill(page, name, secret) {
  await page.locator('#name').focus()
  await page.keyboard.press('Control+A')
  await page.keyboard.type(name)
  await page.keyboard.press('Tab')
  await page.keyboard.type(secret)
  await Promise.all([page.waitForEvent('load'), page.keyboard.press('Enter')])
}

async function operator({ page, shot, asynqmon }) {
  await page.goto(url + '/')
  assert.match(page.url(), /\/login\?next=%2F$/)
  await accessible(page)
  await shot('login')
  await fill(page, 'alice', 'a wrong password')
  assert.equal(await page.getByRole('alert').innerText(), 'The name or the password is wrong.')
  assert.equal(await page.locator('#name').inputValue(), 'alice')
  await shot('wrong')
  await fill(page, 'alice', password)
  assert.equal(page.url(), url + '/')
  assert.match(await page.locator('main').innerText(), /logged in as alice and may change/)
  await accessible(page)
  await shot('home')
  await asynqmon(async () => {
    await page.goto(url + '/asynq/queues/reset-0?status=pending')
    await page.getByText('reset-0').first().waitFor()
    await page.getByRole('checkbox').first().waitFor() // tasks can be chosen, to do something with them
    await shot('asynq')
  })
  await decide({ page, shot })
  await page.goto(url + '/')
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.waitForURL(/\/login$/)
  await page.goto(url + '/')
  assert.match(page.url(), /\/login\?/)
}

// decide cancels and retries a job, and halts a tenant, each after it was asked once more.
async function decide({ page, shot }) {
  const look = async what => {
    await accessible(page)
    await fits(page)
    await shot(what)
  }
  const press = async (role, name) => {
    await Promise.all([page.waitForEvent('load'), page.getByRole(role, { name, exact: true }).click()])
  }
  await page.goto(url + '/jobs')
  await page.getByLabel('Tenant').fill('acme')
  await press('button', 'Show')
  await look('jobs')
  await press('link', job)
  assert.match(await page.locator('main').innerText(), /CPS\.0005 Phone <not> found\./)
  await look('job')
  await press('link', 'Cancel 2 waiting')
  await look('cancel')
  await page.getByLabel('Reason, for the audit trail').fill('wrong list')
  await press('button', 'Cancel 2 instances')
  assert.equal(page.url(), `${url}/jobs/${job}`)
  assert.equal(await page.locator('td .state.cancelled').count(), 2)
  await press('link', 'Retry 3 that did not succeed')
  await press('button', 'Reset 3 instances')
  assert.equal(await page.locator('td .state.pending').count(), 3)

  await page.goto(url + '/tenants')
  await page.getByLabel('Another tenant').fill('acme')
  await press('button', 'Halt')
  await page.getByLabel('Reason').fill('to be safe')
  await look('halt')
  await press('button', 'Halt acme')
  assert.match(await page.locator('table').innerText(), /halted since .*: to be safe/)
  await look('tenants')
  await press('link', 'Resume acme')
  await look('resume')
  await press('button', 'Resume acme')
  assert.doesNotMatch(await page.locator('table').innerText(), /halted/)
  await page.goto(url + '/audit')
  await look('audit')
}

async function viewer({ page, shot, asynqmon }) {
  await page.goto(url + '/asynq')
  await shot('login')
  await fits(page)
  await accessible(page)
  await asynqmon(async () => {
    await fill(page, 'vera', password)
    await page.waitForURL(/\/asynq/)
    await page.goto(url + '/asynq/queues/reset-0?status=pending')
    await page.getByText('reset-0').first().waitFor()
    await page.getByText(/^Pending/).first().waitFor()
    assert.equal(await page.getByRole('checkbox').count(), 0)
    await shot('asynq')
  })
  await page.goto(url + '/')
  assert.match(await page.locator('main').innerText(), /logged in as vera and may look/)
  assert.equal(await page.getByText('Profiles').count(), 0)
  await fits(page)
  await accessible(page)
  await shot('home')
  await page.goto(`${url}/jobs/${job}`)
  assert.equal(await page.getByRole('link', { name: /^(Cancel|Retry)/ }).count(), 0)
  await fits(page)
  await accessible(page)
  await shot('job')
  await page.goto(url + '/tenants')
  assert.equal(await page.getByRole('link', { name: /^(Halt|Resume)/ }).count(), 0)
  await fits(page)
  await page.goto(url + '/debug/pprof/')
  assert.match(await page.getByRole('alert').innerText(), /Viewers may look, not change/)
  await shot('refused')
}

main().catch(e => {
  console.error(e)
  process.exit(1)
})
