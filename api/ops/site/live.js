// Keeps what is marked with data-live as the server has it now, while somebody looks. Only what has
// changed is changed: focus, selection, what was opened, and the place on the page stay.
/* global Idiomorph */
const every = 2000
const patience = 10000

// live looks again and again. dress prepares what is new, changed is called after each change.
export function live(dress, changed) {
  let since // without an answer

  function update(part, fresh) {
    if (part.isEqualNode(fresh)) return
    Idiomorph.morph(part, fresh, {
      morphStyle: 'outerHTML',
      restoreFocus: true,
      callbacks: {
        beforeNodeMorphed: (was, is) => !(was.dataset && 'keep' in was.dataset) && !(was.isEqualNode && was.isEqualNode(is)),
        beforeNodeRemoved: node => !(node.dataset && 'keep' in node.dataset),
        beforeAttributeUpdated: (name, node) => !(name === 'open' && node.localName === 'details') && !(name === 'class' && node.localName === 'figure')
      }
    })
  }

  // say says whether there was an answer; why is what is known of the cause.
  function say(answered, why = 'No answer') {
    const state = document.querySelector('[data-state]')
    since = answered ? undefined : since ?? new Date()
    if (!state) return
    state.hidden = false
    state.classList.toggle('stale', !answered)
    const text = answered ? 'Live' : `${why} since ${since.toTimeString().slice(0, 8)}. What is shown may have changed.`
    if (state.textContent !== text) state.textContent = text
  }

  async function look() {
    const parts = document.querySelectorAll('[data-live]')
    if (!parts.length) {
      document.querySelector('[data-state]')?.setAttribute('hidden', '')
      return false
    }
    if (document.hidden) return true
    const [text, why] = await ask()
    say(text !== undefined, why)
    if (text === undefined) return true
    const page = new DOMParser().parseFromString(text, 'text/html')
    dress(page)
    for (const part of parts) {
      const fresh = page.getElementById(part.id)
      if (fresh) update(part, fresh)
    }
    if (document.title !== page.title) document.title = page.title
    changed()
    return true
  }

  // ask returns the page as it is now, or nothing and what is known of the cause.
  async function ask() {
    try {
      const answer = await fetch(location.href, { signal: AbortSignal.timeout(patience) })
      if (answer.status === 401) location.reload()
      if (answer.status === 503) return [undefined, 'Redis does not answer']
      return [answer.ok ? await answer.text() : undefined]
    } catch {
      return [undefined]
    }
  }

  async function run() {
    if (await look() !== false) setTimeout(run, every)
  }
  setTimeout(run, every)
}
