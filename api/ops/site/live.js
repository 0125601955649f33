// Keeps what is marked with data-live as the server has it now, while somebody looks. Without
// scripts the pages are the same and stand still.
'use strict'
;(() => {
  const every = 2000
  const patience = 10000
  let stale

  // open tells details apart by where they stand.
  const opened = part => [...part.querySelectorAll('details')].map(d => d.open)

  function update(part, fresh) {
    if (part.outerHTML === fresh.outerHTML) return
    const was = opened(part)
    const focus = part.contains(document.activeElement) ? document.activeElement.getAttribute('href') : null
    const across = [...part.querySelectorAll('.wide')].map(w => w.scrollLeft)
    part.replaceWith(fresh)
    fresh.querySelectorAll('details').forEach((d, n) => { d.open = was[n] ?? false })
    fresh.querySelectorAll('.wide').forEach((w, n) => { w.scrollLeft = across[n] ?? 0 })
    if (focus) fresh.querySelector(`[href="${CSS.escape(focus)}"]`)?.focus({ preventScroll: true })
  }

  function say(text) {
    if (text && !stale) {
      stale = document.createElement('p')
      stale.className = 'problem stale'
      stale.setAttribute('role', 'status')
      document.querySelector('main').append(stale)
    }
    if (stale) stale.textContent = text
    if (!text) stale = stale?.remove()
  }

  async function look() {
    const parts = document.querySelectorAll('[data-live]')
    if (!parts.length) return false
    if (document.hidden || getSelection().toString()) return true
    let answer
    try {
      answer = await fetch(location.href, { signal: AbortSignal.timeout(patience) })
      if (answer.status === 401) return location.reload()
      if (!answer.ok) throw new Error(answer.statusText)
      const page = new DOMParser().parseFromString(await answer.text(), 'text/html')
      for (const part of parts) {
        const fresh = page.getElementById(part.id)
        if (fresh) update(part, fresh)
      }
      say('')
    } catch {
      say('No answer. What is shown may have changed.')
    }
    return true
  }

  async function run() {
    if (await look() !== false) setTimeout(run, every)
  }
  setTimeout(run, every)
})()
