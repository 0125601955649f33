// What asynq's dashboard (asynqmon) does not do by itself: it tells the items of a job apart, says "no limit" where there
// is none, is dark all over where it is dark, and asks before it changes something. It runs before the dashboard does.
(() => {
  'use strict'

  // MaxRetry is what the service gives asynq for "no limit", and longDays is more than any limit: its own is ten years.
  const maxRetry = '2147483647'
  const longDays = 3000
  const day = 24 * 3600

  // What it shows.

  // fullID is the ID of the task of a row, which the dashboard cuts off at the first dash. Only React knows it: the ID is the
  // row's key.
  function fullID (cell, shown) {
    const row = cell.closest('tr')
    const name = row && Object.keys(row).find(key => /^__react(InternalInstance|Fiber)\$/.test(key))
    let fiber = name && row[name]
    for (let up = 0; fiber && up < 5; up++, fiber = fiber.return) {
      if (typeof fiber.key === 'string' && fiber.key.startsWith(shown + '-')) return fiber.key
    }
    return undefined
  }

  // shortID names an item and a delivery of it, such as "1f2e3d4c… item 3, delivery 1", or returns the ID if it is not one.
  function shortID (id) {
    const parts = /^([0-9a-f]{8})[0-9a-f]{24}-(\d+)-(\d+)(?:-.*)?$/.exec(id)
    return parts ? `${parts[1]}… item ${parts[2]}, delivery ${parts[3]}` : id
  }

  function set (text, value) {
    if (text && text.data !== value) text.data = value
  }

  const sibling = (text, way) => {
    const other = text[way]
    return other && other.nodeType === Node.TEXT_NODE ? other : undefined
  }

  // rewrite changes a text in place: it stays React's, which writes it anew when it has changed.
  function rewrite (text) {
    const said = text.data
    const parent = text.parentElement
    if (!said || !parent || parent.closest('pre, script, style, #batchreset, dialog')) return
    const before = sibling(text, 'previousSibling')
    const after = sibling(text, 'nextSibling')
    if (said === maxRetry) {
      if (before && before.data === '/') set(before, ', ')
      set(text, 'no limit')
    } else if (/^in \d+ days$/.test(said) && parseInt(said.slice(3), 10) > longDays) {
      set(text, 'no limit')
    } else if (/^\d+$/.test(said) && after && after.data === ' seconds' && Number(said) > longDays * day) {
      set(text, 'no limit')
      set(after, '')
    } else if (/^\d{4}-\d\d-\d\dT/.test(said) && Date.parse(said) > Date.now() + longDays * day * 1000) {
      set(text, 'no limit')
    } else if (/^[0-9a-f]{32}$/.test(said)) {
      const cell = parent.closest('th[scope=row]')
      const id = cell && fullID(cell, said)
      if (!id) return
      cell.title = id
      set(text, shortID(id))
    }
  }

  function rewriteAll (root) {
    if (root.nodeType === Node.TEXT_NODE) return rewrite(root)
    const texts = document.createTreeWalker(root, NodeFilter.SHOW_TEXT)
    while (texts.nextNode()) rewrite(texts.currentNode)
  }

  // How it looks. Its setting is 1 for always dark, 2 for never, else as the system.
  const darkSystem = matchMedia('(prefers-color-scheme: dark)')
  function dress () {
    let chosen = 0
    try {
      chosen = JSON.parse(localStorage.getItem('asynqmon:state')).settings.themePreference
    } catch { /* nothing was chosen */ }
    const dark = chosen === 1 || (chosen !== 2 && darkSystem.matches)
    const theme = dark ? 'dark' : 'light'
    if (document.documentElement.dataset.theme !== theme) document.documentElement.dataset.theme = theme
  }
  dress()
  darkSystem.addEventListener('change', dress)

  new MutationObserver(changes => {
    dress()
    for (const change of changes) {
      if (change.type === 'characterData') rewrite(change.target)
      else for (const node of change.addedNodes) rewriteAll(node)
    }
  }).observe(document.documentElement, { childList: true, characterData: true, subtree: true })

  // What it changes.

  const isWork = queue => queue.startsWith('reset-')

  const again = 'The items are not cancelled by this: the service delivers them again some minutes later. To stop a job, cancel it on its page.'
  const consequences = {
    pause: queue => isWork(queue)
      ? 'Nothing of the instances in this queue is reset until it is resumed, whoever asked for it; items that wait too long end as failed. Resets that run go on.'
      : 'Nothing that waits in this queue is sent until it is resumed.',
    resume: queue => isWork(queue) ? 'What waits in it is reset from now on.' : 'What waits in it is sent from now on.',
    delete: queue => isWork(queue) ? again : 'What these tasks carry is not sent by them.',
    archive: queue => isWork(queue) ? again : 'What these tasks carry is not sent by them.',
    run: queue => isWork(queue) ? 'They are tried now, instead of when they are due. What is final stays so.' : 'They are tried now, instead of when they are due.',
    cancel: queue => isWork(queue)
      ? 'The attempts are interrupted. What was not sent is tried again; where nobody knows whether the reset happens, the item ends as unknown.'
      : 'They are interrupted, and tried again later.'
  }

  const title = word => word[0].toUpperCase() + word.slice(1)

  // question says what a request would do: a title, what follows from it, and the word for its button. What the dashboard
  // cannot ask for today is asked about, too.
  function question (method, address, body) {
    const path = new URL(address, location.href).pathname
    const parts = /\/api\/queues\/([^/:]+)(?:\/(.*?))?(?::([a-z_]+))?$/.exec(path)
    if (!parts) return { title: `Send ${method} ${path}?`, text: 'This changes something.', button: 'Send' }
    const [queue, rest, action] = [decodeURIComponent(parts[1]), parts[2], parts[3] || method.toLowerCase()]
    const verb = Object.keys(consequences).find(word => action.includes(word)) || action
    if (!rest) {
      const deleted = 'It goes with all that is in it. ' + (isWork(queue) ? again : '')
      return { title: `${title(verb)} the queue ${queue}?`, text: verb === 'delete' ? deleted : (consequences[verb] || String)(queue), button: title(verb) }
    }
    const [group, id] = rest.replace(/^groups\/[^/]+\//, '').split('/')
    let what = `the task ${id && decodeURIComponent(id)}`
    if (!id) {
      let ids
      try {
        ids = JSON.parse(body).task_ids
      } catch { /* it is about all */ }
      const state = group.replace('_tasks', '')
      what = Array.isArray(ids) ? `${ids.length} ${state} ${ids.length === 1 ? 'task' : 'tasks'}` : `all ${state} tasks`
    }
    return { title: `${title(verb)} ${what} of the queue ${queue}?`, text: (consequences[verb] || String)(queue), button: title(verb) }
  }

  function element (name, text, className) {
    const made = document.createElement(name)
    made.textContent = text
    if (className) made.className = className
    return made
  }

  // ask resolves to whether somebody wants it.
  function ask (about) {
    return new Promise(resolve => {
      const dialog = element('dialog', '', 'batchreset-ask')
      const heading = element('h2', about.title)
      heading.id = 'batchreset-question'
      dialog.setAttribute('aria-labelledby', heading.id)
      const no = element('button', 'Cancel')
      const yes = element('button', about.button, 'do')
      const buttons = document.createElement('div')
      buttons.append(no, yes)
      dialog.append(heading, element('p', about.text), buttons)
      no.type = yes.type = 'button'
      no.autofocus = true
      no.addEventListener('click', () => dialog.close())
      yes.addEventListener('click', () => dialog.close('yes'))
      dialog.addEventListener('close', () => {
        dialog.remove()
        resolve(dialog.returnValue === 'yes')
      })
      document.body.append(dialog)
      dialog.showModal()
    })
  }

  // refuse answers a request that is not sent, as a server would that refuses it.
  function refuse (request) {
    const answer = { readyState: 4, status: 409, statusText: 'Not sent', responseText: 'You said no: nothing was changed.', response: 'You said no: nothing was changed.' }
    for (const [name, value] of Object.entries(answer)) Object.defineProperty(request, name, { value, configurable: true })
    request.getAllResponseHeaders = () => 'content-type: text/plain\r\n'
    for (const name of ['readystatechange', 'load', 'loadend']) request.dispatchEvent(new ProgressEvent(name))
  }

  const changes = method => !['GET', 'HEAD', 'OPTIONS'].includes(method)

  const { open, send } = XMLHttpRequest.prototype
  const opened = new WeakMap()
  XMLHttpRequest.prototype.open = function (method, address, ...more) {
    opened.set(this, { method: String(method).toUpperCase(), address: String(address) })
    return open.call(this, method, address, ...more)
  }
  XMLHttpRequest.prototype.send = function (body) {
    const { method, address } = opened.get(this) || { method: 'GET' }
    if (!changes(method)) return send.call(this, body)
    ask(question(method, address, body)).then(wanted => wanted ? send.call(this, body) : refuse(this))
  }

  const fetched = window.fetch
  window.fetch = async (input, init = {}) => {
    const request = new Request(input, init)
    if (changes(request.method) && !await ask(question(request.method, request.url, init.body))) {
      return new Response('You said no: nothing was changed.', { status: 409, statusText: 'Not sent' })
    }
    return fetched(request)
  }
})()
