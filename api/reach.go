package api

import (
	"context"

	"batchreset/tasks"
)

// A token may be for some instances of its tenant only, by their labels. A submit with it is refused as if
// the others were not the tenant's. What lets go on what somebody else has asked for is refused as well.

// checkReach refuses a token that is not for all of these instances.
func (s *server) checkReach(ctx context.Context, token tasks.Token, instances []string) error {
	if len(token.InstanceLabels) == 0 {
		return nil
	}
	var beyond someInstances
	err := s.eachVerdict(ctx, token, instances, func(in tasks.Instance, id string, _ tasks.Verdict) {
		if !token.Reaches(in) {
			beyond.add(id)
		}
	})
	if err != nil {
		return err
	}
	if beyond.count > 0 {
		return tasks.Errorf(tasks.Forbidden, "the token is not for these instances: %s", beyond)
	}
	return nil
}

// checkRunReach does so for the instances of a run.
func (s *server) checkRunReach(ctx context.Context, token tasks.Token, run tasks.Run) error {
	if len(token.InstanceLabels) == 0 {
		return nil
	}
	var instances []string
	err := s.cfg.Runs.Instances(ctx, run, func(in tasks.RunInstance) error {
		instances = append(instances, in.Item.InstanceID)
		return nil
	})
	if err != nil {
		return err
	}
	return s.checkReach(ctx, token, instances)
}
