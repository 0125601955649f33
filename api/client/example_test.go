package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"net/http"
	"net/http/httptest"

	"batchreset/api/client"
)

// service answers the requests of the examples, as the service would.
func service() *httptest.Server {
	const record = `{"job_id":"0dd52c6b0dd52c6b0dd52c6b0dd52c6b","state":"%s","total":2,"counts":{"%s":2},"items":[` +
		`{"instance_id":"phone-1","state":"%[2]s"},{"instance_id":"phone-2","state":"%[2]s"}]}`
	answer := func(w http.ResponseWriter, data string) {
		fmt.Fprintf(w, `{"error_code":"0","error_msg":"ok","data":%s}`, data)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /v1/instances/batch-reset", func(w http.ResponseWriter, _ *http.Request) {
		answer(w, `{"task_id":"0dd52c6b0dd52c6b0dd52c6b0dd52c6b","cmd_jobs":[]}`)
	})
	mux.HandleFunc("GET /v1/jobs/{id}/events", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for n, state := range []string{"running", "succeeded"} {
			fmt.Fprintf(w, "id: %d\nevent: job\ndata: "+record+"\n\n", n, state, state)
		}
	})
	mux.HandleFunc("GET /v1/jobs", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("cursor") == "" {
			answer(w, `{"jobs":[{"job_id":"second","state":"failed"}],"next_cursor":"c"}`)
		} else {
			answer(w, `{"jobs":[{"job_id":"first","state":"failed"}]}`)
		}
	})
	mux.HandleFunc("POST /v1/jobs/{id}/cancel", func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusConflict)
		fmt.Fprint(w, `{"error_code":"RESET.0003","error_msg":"the job has ended"}`)
	})
	return httptest.NewServer(mux)
}

func Example() {
	server := service()
	defer server.Close()
	ctx := context.Background()

	c, err := client.New(server.URL, "demo-token")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	accepted, err := c.Submit(ctx, client.Batch{
		InstanceIDs:    []string{"phone-1", "phone-2"},
		IdempotencyKey: "nightly-0042", // run again, this finds the same job
	})
	if err != nil {
		log.Fatal(err)
	}
	job, err := c.Wait(ctx, accepted.JobID, func(job client.Job) { fmt.Println(job.State) })
	if err != nil {
		log.Fatal(err)
	}
	for _, item := range job.Items {
		fmt.Println(item.InstanceID, item.State)
	}
	// Output:
	// running
	// succeeded
	// phone-1 succeeded
	// phone-2 succeeded
}

func ExampleClient_Jobs() {
	server := service()
	defer server.Close()
	c, err := client.New(server.URL, "demo-token")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	for job, err := range c.Jobs(context.Background(), client.JobsFilter{State: "failed"}) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(job.ID)
	}
	// Output:
	// second
	// first
}

func ExampleError() {
	server := service()
	defer server.Close()
	c, err := client.New(server.URL, "demo-token")
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	_, err = c.Cancel(context.Background(), "0dd52c6b0dd52c6b0dd52c6b0dd52c6b")
	if e, answered := errors.AsType[*client.Error](err); answered {
		fmt.Println(e.HTTPStatus, e.Code, e.Message)
	}
	// Output:
	// 409 RESET.0003 the job has ended
}
