package cphtest

import (
	"encoding/json"
	"io"
	"net/http"
	"time"

	"batchreset/tasks/sdkhmac"
)

type object = map[string]any

// stamp is a time as CPH writes it, or null.
func stamp(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Format("2006-01-02T15:04:05Z")
}

// orNull is a text, or null if there is none.
func orNull(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func answer(w http.ResponseWriter, status int, body object) {
	if _, ok := body["request_id"]; !ok {
		body["request_id"] = newID()
	}
	text, err := json.Marshal(body)
	if err != nil {
		panic(err) // only our own code can be wrong
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(text)
}

func fail(w http.ResponseWriter, status int, code, message string) {
	answer(w, status, object{"error_code": code, "error_msg": message})
}

// readBody takes what the gateway would take: 12 MB.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, 12<<20))
	if err != nil {
		fail(w, http.StatusRequestEntityTooLarge, "APIGW.0201", "Request entity too large")
	}
	return body, err
}

// letIn says why a request is refused, in the gateway's words, or nothing.
func (s *Server) letIn(r *http.Request, body []byte) string {
	if token := r.Header.Get("X-Auth-Token"); token != "" {
		if !s.tokens[token] {
			return "decrypt token fail"
		}
		return ""
	}
	signed, err := sdkhmac.Read(r)
	if err != nil {
		return "x-auth-token not found; " + err.Error()
	}
	secret, ok := s.Keys[signed.Access]
	if !ok {
		return "Get secretKey failed,ak:" + signed.Access + ",err:ak not exist"
	}
	if err := signed.Verify(secret, body, time.Now(), 15*time.Minute); err != nil {
		return "verify aksk signature fail: " + err.Error()
	}
	return ""
}

// login gives a token for a password and the project.
func (s *Server) login(w http.ResponseWriter, body []byte) {
	var asked struct {
		Auth struct {
			Identity struct {
				Methods  []string
				Password struct {
					User struct {
						Name, Password string
						Domain         struct{ Name string }
					}
				}
			}
			Scope struct{ Project struct{ ID string } }
		}
	}
	s.logins++
	err := json.Unmarshal(body, &asked)
	user := asked.Auth.Identity.Password.User
	if err != nil || s.User == "" || user.Name != s.User || user.Password != s.Password || user.Domain.Name != s.Domain || asked.Auth.Scope.Project.ID != s.project {
		answer(w, http.StatusUnauthorized, object{"error": object{"code": 401, "message": "The username or password is wrong.", "title": "Unauthorized"}})
		return
	}
	token := newID()
	s.tokens[token] = true
	w.Header().Set("X-Subject-Token", token)
	answer(w, http.StatusCreated, object{"token": object{"expires_at": time.Now().Add(24 * time.Hour).UTC().Format("2006-01-02T15:04:05.000000Z")}})
}

// reset answers each phone by itself: with a job, or an error.
func (s *Server) reset(w http.ResponseWriter, body []byte) {
	var asked struct {
		ImageID string `json:"image_id"`
		Phones  []struct {
			PhoneID  string `json:"phone_id"`
			Property string `json:"property"`
		} `json:"phones"`
	}
	if err := json.Unmarshal(body, &asked); err != nil {
		fail(w, http.StatusBadRequest, "CPS.0077", "Invalid phones.")
		return
	}
	if len(asked.Phones) == 0 {
		fail(w, http.StatusBadRequest, "CPS.0009", "The phone list is empty.")
		return
	}
	jobs := []object{}
	for _, one := range asked.Phones {
		switch p := s.phones[one.PhoneID]; {
		case p == nil:
			jobs = append(jobs, object{"phone_id": one.PhoneID, "error_code": "CPS.0005", "error_msg": "Phone not found."})
		case one.Property != "" && !json.Valid([]byte(one.Property)):
			jobs = append(jobs, object{"phone_id": p.ID, "error_code": "CPS.0164", "error_msg": "Invalid property."})
		case p.Status == 6:
			jobs = append(jobs, object{"phone_id": p.ID, "error_code": "CPS.0053", "error_msg": "The phone is frozen."})
		case p.job != nil || p.Status == 1 || p.Status == 3 || p.Status == 4 || p.Status == 7:
			jobs = append(jobs, object{"phone_id": p.ID, "error_code": "CPS.0165", "error_msg": "The phone must be stopped or running."})
		default:
			jobs = append(jobs, object{"phone_id": p.ID, "job_id": s.begin(p, asked.ImageID, one.Property).id})
		}
	}
	answer(w, http.StatusOK, object{"jobs": jobs})
}

func (s *Server) showJob(w http.ResponseWriter, id string) {
	j := s.jobs[id]
	if j == nil {
		fail(w, http.StatusBadRequest, "CPS.0011", "Job not found.")
		return
	}
	s.asked(s.phones[j.phone])
	message := ""
	if j.code != "" {
		message = "The reset has failed."
	}
	answer(w, http.StatusOK, object{
		"job_id": j.id, "phone_id": j.phone, "server_id": "server-1", "status": j.status,
		"begin_time": stamp(j.began), "end_time": stamp(j.ended),
		"error_code": orNull(j.code), "error_msg": orNull(message), "execute_msg": nil,
	})
}

func (s *Server) showPhone(w http.ResponseWriter, id string) {
	p := s.phones[id]
	if p == nil {
		fail(w, http.StatusBadRequest, "CPS.0005", "Phone not found.")
		return
	}
	s.asked(p)
	answer(w, http.StatusOK, phone(p))
}

func (s *Server) listPhones(w http.ResponseWriter) {
	all := []object{}
	for _, p := range s.phones {
		all = append(all, phone(p))
	}
	answer(w, http.StatusOK, object{"count": len(all), "phones": all})
}

func phone(p *Phone) object {
	return object{
		"phone_name": "phone-" + p.ID, "server_id": "server-1", "phone_id": p.ID, "image_id": p.Image, "image_version": "AOSP 11.0",
		"vnc_enable": "false", "phone_model_name": "physical.rx1.xlarge", "status": p.Status, "type": 0, "property": p.Property,
		"access_infos": []object{{"type": "ADB", "listen_port": 5555, "phone_ip": "10.0.0.2"}},
		"metadata":     object{"order_id": "CS1", "product_id": "P1"},
		"create_time":  stamp(start), "update_time": stamp(p.Updated),
	}
}
