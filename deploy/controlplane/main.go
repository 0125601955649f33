// Command controlplane resets a phone by running your program, which finds the ID in $PHONE.
package main

import (
	"cmp"
	"encoding/json"
	"log"
	"net/http"
	"os"
	"os/exec"
	"sync"
)

func main() {
	program := os.Args[1:]
	if len(program) == 0 {
		log.Fatal("which program resets the phone $PHONE? Such as: controlplane sh -c 'echo $PHONE'")
	}
	var calls sync.Map // by phone and key: a call that is repeated gets the answer to the first one
	http.HandleFunc("POST /phones/{id}/reset", func(w http.ResponseWriter, r *http.Request) {
		phone, key := r.PathValue("id"), r.Header.Get("Idempotency-Key")
		if key == "" {
			http.Error(w, "Idempotency-Key is missing", http.StatusBadRequest)
			return
		}
		reset, _ := calls.LoadOrStore(phone+" "+key, sync.OnceValue(func() error {
			cmd := exec.Command(program[0], program[1:]...) //nolint:noctx // goes on if the caller hangs up
			cmd.Env = append(os.Environ(), "PHONE="+phone)
			return cmd.Run()
		}))
		answer := map[string]string{"status": "done"}
		if err := reset.(func() error)(); err != nil {
			answer = map[string]string{"status": "failed", "error_msg": err.Error()}
		}
		_ = json.NewEncoder(w).Encode(answer)
	})
	log.Fatal(http.ListenAndServe(cmp.Or(os.Getenv("LISTEN"), "127.0.0.1:8090"), nil))
}
