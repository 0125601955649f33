package history

import (
	"fmt"
	"time"

	"batchreset/cmd/chaos/fault"
)

const (
	// haltWithin is how soon a halt must hold.
	haltWithin = time.Second
	// onTheWay is how long a call that was sent may take to arrive after its link was
	// disturbed.
	onTheWay = time.Second
)

// checkHaltHolds: no call begins while all tenants are halted, but for those of the first
// second, and those that were held up on their way to the control plane.
func (f facts) checkHaltHolds() (vs []Violation) {
	for _, halt := range f.faults {
		// What Redis forgets holds no longer: from the loss on nobody is halted.
		if halt.Fault != fault.HaltAll || f.forgettable(halt.Begin, halt.Begin, 0) {
			continue
		}
		for _, c := range f.Events {
			if c.Kind != Call || c.Begin <= halt.Begin+haltWithin || c.Begin >= halt.End || f.delayed(c, halt.Begin) {
				continue
			}
			vs = append(vs, Violation{
				"Halt", fmt.Sprintf("%s was reset %s after a halt", c.Instance, c.Begin-halt.Begin),
				f.story(func(e Event) bool {
					return e.Kind == Fault && e.Fault == fault.HaltAll && e.Begin == halt.Begin || e.Kind == Call && e.Item == c.Item
				}),
			})
			break // the others tell the same story
		}
	}
	return vs
}
