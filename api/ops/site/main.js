// What a page can do more with scripts. Without them it is the same and stands still.
import { showTimes, offerUTC } from './times.js'
import { dressTables } from './tables.js'
import { draw } from './plots.js'
import { listen } from './keys.js'
import { live } from './live.js'

// dress gives a page, or one that is about to be shown, what the server does not write.
function dress(root) {
  showTimes(root)
  dressTables(root)
}

// showCurrent scrolls the menu, which is one line on a phone, to the page that is shown.
function showCurrent() {
  const link = document.querySelector('nav [aria-current=page]')
  const menu = link?.closest('nav')
  if (!link || !menu) return
  const at = link.getBoundingClientRect()
  const frame = menu.getBoundingClientRect()
  menu.scrollLeft += at.left - frame.left - (frame.width - at.width) / 2
  if (at.bottom > frame.bottom) menu.scrollTop += at.top - frame.top - (frame.height - at.height) / 2
}

dress(document)
draw()
showCurrent()
offerUTC(() => dress(document))
listen()
live(dress, draw)
