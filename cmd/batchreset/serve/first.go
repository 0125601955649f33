package serve

import (
	"cmp"
	"context"
	"crypto/rand"
	"fmt"
	"time"

	"batchreset/api/ops/login"
)

// inviteFirst prints a link that makes the first operator, if there is none. It goes to
// standard output, for people: the log, which goes to standard error, is often kept and read
// elsewhere, by more of them than may log in. Without a link the service works all the same.
func (p *process) inviteFirst(ctx context.Context) {
	secret := rand.Text()
	invited, err := p.db.Operators.InviteFirst(ctx, secret, firstLasts)
	switch {
	case err != nil:
		p.log.Warn("no link was made for the first operator of the site; 'batchreset operator add' makes one", "error", err)
	case invited:
		p.log.Warn("the operators' site has no operator yet, so it is closed: standard output has a link that makes the first one, and so does 'batchreset operator add'")
		fmt.Fprintf(p.std.Out, `There is no operator yet. Whoever opens this link first becomes one, within an hour:

  %s

It works once. Under another name of the site, through a proxy for example, put that in its place.

`, login.FirstOperatorLink(cmp.Or(p.ops.url, p.site), secret))
	}
}

// firstLasts is how long the link for the first operator is good, as it says.
const firstLasts = time.Hour
