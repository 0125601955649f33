// Command oapi-codegen submits two instances with the client that oapi-codegen makes of the
// contract, and waits for the end of the job.
package main

import (
	"context"
	"fmt"
	"log"
	"net/http"
	"os"

	"check/oapi-codegen/api"
)

func main() {
	log.SetFlags(0)
	ctx := context.Background()
	client, err := api.NewClientWithResponses(os.Args[1], api.WithRequestEditorFn(func(_ context.Context, r *http.Request) error {
		r.Header.Set("X-Auth-Token", os.Args[2])
		return nil
	}))
	if err != nil {
		log.Fatal(err)
	}
	key, wait := "oapi-codegen", "wait=30"
	batch := api.Batch{InstanceIds: []api.InstanceID{"oapi-1", "oapi-2"}}
	answer, err := client.BatchResetWithResponse(ctx, &api.BatchResetParams{IdempotencyKey: &key}, batch)
	if err != nil {
		log.Fatal(err)
	}
	if answer.JSON200 == nil {
		log.Fatalf("not accepted: %s", answer.Body)
	}
	accepted, err := answer.JSON200.Data.AsAccepted()
	if err != nil {
		log.Fatal(err)
	}
	for {
		answer, err := client.GetJobWithResponse(ctx, accepted.TaskId, &api.GetJobParams{Prefer: &wait})
		if err != nil {
			log.Fatal(err)
		}
		if answer.JSON200 == nil {
			log.Fatalf("no record: %s", answer.Body)
		}
		switch state := answer.JSON200.Data.State; state {
		case api.JobStatePending, api.JobStateRunning:
		case api.JobStateSucceeded:
			fmt.Println("oapi-codegen: job", accepted.TaskId, state)
			return
		default:
			log.Fatalf("job %s %s", accepted.TaskId, state)
		}
	}
}
