// Command ogen submits two instances with the client that ogen makes of the contract, and
// waits for the end of the job.
package main

import (
	"context"
	"fmt"
	"log"
	"os"

	"github.com/ogen-go/ogen/ogenerrors"

	"check/ogen/api"
)

type token string

func (t token) Token(context.Context, api.OperationName) (api.Token, error) {
	return api.Token{APIKey: string(t)}, nil
}

// This program has only a token: the other two ways to say who one is are skipped.
func (token) Signature(context.Context, api.OperationName) (api.Signature, error) {
	return api.Signature{}, ogenerrors.ErrSkipClientSecurity
}

func (token) Bearer(context.Context, api.OperationName) (api.Bearer, error) {
	return api.Bearer{}, ogenerrors.ErrSkipClientSecurity
}

func main() {
	log.SetFlags(0)
	ctx := context.Background()
	client, err := api.NewClient(os.Args[1], token(os.Args[2]))
	if err != nil {
		log.Fatal(err)
	}
	batch := &api.Batch{InstanceIds: []api.InstanceID{"ogen-1", "ogen-2"}}
	answer, err := client.BatchReset(ctx, batch, api.BatchResetParams{IdempotencyKey: api.NewOptString("ogen")})
	if err != nil {
		log.Fatal(err)
	}
	accepted, ok := answer.(*api.BatchResetOKHeaders)
	if !ok {
		log.Fatalf("not accepted: %+v", answer)
	}
	id := accepted.Response.Data.Accepted.TaskID
	for {
		answer, err := client.GetJob(ctx, api.GetJobParams{JobID: id, Prefer: api.NewOptString("wait=30")})
		if err != nil {
			log.Fatal(err)
		}
		record, ok := answer.(*api.GetJobOKHeaders)
		if !ok {
			log.Fatalf("no record: %+v", answer)
		}
		switch job := record.Response.Data; job.State {
		case api.JobStatePending, api.JobStateRunning:
		case api.JobStateSucceeded:
			fmt.Println("ogen: job", id, job.State)
			return
		default:
			log.Fatalf("job %s %s", id, job.State)
		}
	}
}
