package call

import (
	"context"
	"fmt"

	"batchreset/api/client"
	"batchreset/cmd/batchreset/terminal"
	"batchreset/tasks"
)

// askFirst has a person look once more at what is about to be destroyed, and whose it is. It
// fails unless the answer is yes.
func askFirst(ctx context.Context, std *terminal.Streams, c *client.Client, instances []string) error {
	who, err := c.WhoAmI(ctx)
	if err != nil {
		return err
	}
	return terminal.Confirm(ctx, std, fmt.Sprintf("%s: %s\nserver %s, tenant %s\nThis destroys the data on them. Go on?",
		terminal.Plural(len(instances), "instance"), terminal.SomeIDs(instances), c.Server(), tasks.Visible(who.Tenant)))
}
