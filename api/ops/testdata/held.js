// Sees what is held, goes where it ends, ends it, and sees that it is gone.
// Arguments: URL of the site, password of alice (operator) and vera (viewer), the ID of a job of the tenant acme, which is halted, and that of
// a run of acme.
const assert = require('node:assert/strict')
const { tell, desktop, darkPhone, logIn } = require('./site')

const [url, password, job, run] = process.argv.slice(2)

const held = page => page.getByRole('region', { name: 'Held' })

async function viewer({ page, look }) {
  await logIn(page, url + '/', 'vera', password)
  await held(page).getByText('resets of the tenant are halted: recall').waitFor({ timeout: 20000 })
  await held(page).getByText('no living worker has the driver lab').waitFor()
  assert.equal(await held(page).getByRole('link', { name: 'Resume' }).count(), 0)
  assert.match(await page.locator('main').innerText(), /0 waiting\s+could begin now\s/)
  await look('overview')
  await held(page).scrollIntoViewIfNeeded()
  await look('overview-list')
  for (const [path, what] of [['/jobs/' + job, 'job'], ['/runs/' + run, 'run'], ['/instances/phone-2', 'instance']]) {
    await page.goto(url + path)
    assert.match(await page.locator('main').innerText(), /Held:[^]*resets of the tenant are halted: recall, since/)
    await look(what)
  }
  await page.goto(url + '/tenants')
  await look('tenants')
  // The menu of a phone is one line, and shows the page that one is on.
  const shown = await page.locator('nav [aria-current=page]').evaluate(link => {
    const [at, menu] = [link.getBoundingClientRect(), link.closest('nav').getBoundingClientRect()]
    return at.left >= menu.left && at.right <= menu.right && at.top >= menu.top && scrollY === 0
  })
  assert.ok(shown, 'the menu does not show the current page')
  // Each list leads to itself as a file.
  for (const [path, what] of [['/failures?window=31d&tenant=acme', 'failures'], ['/webhooks?tenant=acme', 'webhooks'], ['/control-planes', 'planes'], ['/operators', 'operators'], ['/approvals', 'approvals']]) {
    await page.goto(url + path)
    await page.getByRole('link', { name: 'JSON lines' }).waitFor()
    await look(what)
  }
}

async function operator({ page, press, look }) {
  await logIn(page, url + '/tenants/halt?tenant=globex', 'alice', password)
  assert.match(await page.locator('main').innerText(), /It stops 0 instances that wait\. No instance is being reset now\. 3 more are held already\. Counted at/)
  await look('halt')
  await page.goto(url + '/')
  await held(page).getByText('recall').waitFor({ timeout: 20000 })
  await Promise.all([page.waitForEvent('load'), held(page).getByRole('link', { name: 'Resume' }).click()])
  assert.match(await page.getByRole('heading', { level: 1 }).innerText(), /Let the resets of acme go on/)
  await page.getByLabel('Reason').fill('checked')
  await press('button', 'Resume acme')
  await page.goto(url + '/jobs/' + job)
  assert.doesNotMatch(await page.locator('main').innerText(), /Held/)
  // By itself, without a reload.
  await page.goto(url + '/')
  await held(page).getByText('resets of the tenant are halted').waitFor({ state: 'detached', timeout: 20000 })
}

tell(url, [
  { name: 'held', options: desktop, story: viewer },
  { name: 'held-dark', options: { ...desktop, colorScheme: 'dark' }, story: viewer },
  { name: 'held-phone', options: darkPhone, story: viewer },
  { name: 'held-operator', options: desktop, story: operator },
])
