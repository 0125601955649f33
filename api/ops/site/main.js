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

dress(document)
draw()
offerUTC(() => dress(document))
listen()
live(dress, draw)
