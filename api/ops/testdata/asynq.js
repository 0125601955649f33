// Uses asynq's dashboard as it is wrapped. Arguments: URL of the site, password of alice (operator) and vera (viewer), and a
// job of which two items wait in the queue reset-0.
const assert = require('node:assert/strict')
const { tell, desktop, darkPhone, logIn } = require('./site')

const [url, password, job] = process.argv.slice(2)

const rows = page => page.locator('tbody th[scope=row]')

async function operator({ page, shot, unheard }) {
  const sent = []
  page.on('request', r => { if (r.method() === 'POST' && r.url().includes('/asynq/')) sent.push(new URL(r.url()).pathname.replace(/.*\/asynq/, '')) })
  await unheard(async () => {
    await logIn(page, url + '/asynq/queues/reset-0?status=pending', 'alice', password)

    // Items of one job can be told apart.
    await page.getByText('item 1, delivery 1').waitFor()
    const shown = (await rows(page).allInnerTexts()).map(t => t.trim())
    for (const item of [1, 2]) assert.ok(shown.includes(`${job.slice(0, 8)}… item ${item}, delivery 1`), shown.join('\n'))
    assert.equal(new Set(shown).size, shown.length)
    assert.match(await rows(page).filter({ hasText: 'item 1,' }).getAttribute('title'), new RegExp(`^${job}-1-1-`))
    assert.equal(await page.getByText('2147483647').count(), 0)
    await shot('rows')
    await page.getByText('item 2, delivery 1').click()
    await page.getByText('Task Info').waitFor()
    await page.getByText(`${job}-2-1-`).first().waitFor()
    await page.getByText('0, no limit').waitFor()
    assert.equal(await page.getByText('315360000').count(), 0)
    await shot('one')

    // Pausing asks, and no request is sent before the answer.
    await page.goto(url + '/asynq/')
    const row = page.locator('tr', { has: page.getByRole('link', { name: 'reset-0' }) })
    const press = async action => {
      await page.mouse.move(0, 0)
      await row.locator('td').last().hover()
      await row.locator(`[title=${action}], [aria-label=${action}]`).first().click()
    }
    const question = page.getByRole('dialog', { name: 'Pause the queue reset-0?' })
    await press('Pause')
    await question.getByText('until it is resumed').waitFor()
    await shot('question')
    await question.getByRole('button', { name: 'Cancel' }).click()
    await question.waitFor({ state: 'detached' })
    await press('Pause')
    await page.keyboard.press('Escape')
    await question.waitFor({ state: 'detached' })
    assert.deepEqual(sent, [])
    await press('Pause')
    await question.getByRole('button', { name: 'Pause' }).click()
    await row.getByText('paused').waitFor()
    assert.deepEqual(sent, ['/api/queues/reset-0:pause'])
    await press('Resume')
    await page.getByRole('dialog', { name: 'Resume the queue reset-0?' }).getByRole('button', { name: 'Resume' }).click()
    await row.getByText('run').waitFor()
    assert.deepEqual(sent.slice(1), ['/api/queues/reset-0:resume'])

    // There is a way back, and a way out.
    await page.getByText('alice (operator)').waitFor()
    await page.getByRole('link', { name: 'Jobs' }).click()
    await page.waitForURL(url + '/jobs')
    await page.goto(url + '/asynq/servers')
    await page.getByRole('link', { name: 'batchreset' }).click()
    await page.waitForURL(url + '/')
    await page.goto(url + '/asynq/')
    await page.getByRole('button', { name: 'Log out' }).click()
    await page.waitForURL(url + '/login')
  })
}

// brightness of the background that an element is seen on: 0 to 255.
const brightness = (page, selector) => page.evaluate(s => {
  let e = document.querySelector(s)
  let color
  for (; e; e = e.parentElement) {
    color = getComputedStyle(e).backgroundColor.match(/[\d.]+/g).map(Number)
    if (color.length === 3 || color[3] > 0.5) break
  }
  return (color[0] + color[1] + color[2]) / 3
}, selector)

async function dark({ page, shot, unheard }) {
  await unheard(async () => {
    await logIn(page, url + '/asynq/queues/reset-0?status=pending', 'vera', password)
    await page.getByText('item 1, delivery 1').waitFor()
    for (const part of ['body', '#batchreset', '#root main', '#root header', 'tbody th', 'tbody pre']) {
      assert.ok(await brightness(page, part) < 90, `${part} is light`)
    }
    assert.equal(await page.getByRole('checkbox').count(), 0) // she changes nothing
    const out = await page.getByRole('button', { name: 'Log out' }).boundingBox()
    assert.ok(out.x + out.width <= page.viewportSize().width, 'the way out is beyond the edge')
    await shot('dark')
    // Who has chosen the light theme has it.
    await page.evaluate(() => localStorage.setItem('asynqmon:state', JSON.stringify({ settings: { themePreference: 2 } })))
    await page.reload()
    await page.getByText('item 1, delivery 1').waitFor()
    for (const part of ['body', '#batchreset', '#root main', 'tbody th']) assert.ok(await brightness(page, part) > 160, `${part} is dark`)
  })
}

tell(url, [
  { name: 'asynq', options: desktop, story: operator },
  { name: 'asynq-viewer', options: { ...desktop, colorScheme: 'dark' }, story: dark },
  { name: 'asynq-phone', options: darkPhone, story: dark }
])
