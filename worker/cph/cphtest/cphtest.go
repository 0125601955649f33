// Package cphtest is a stand-in for Cloud Phone Host, and for the IAM that gives its tokens, with
// the requests and answers of its documentation: what the tests of the driver are made with. The
// official SDK for Go is driven against it in the module sdktest.
//
// It verifies every signature and token. Time passes in it by questions: a reset takes as many
// as Questions says.
package cphtest

import (
	"crypto/rand"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Server is the stand-in. Its fields must be set before it is used.
type Server struct {
	Keys map[string]string // secrets of the access keys
	// Domain, User and Password are those of the only user of IAM.
	Domain, User, Password string
	// Questions is how often a job or its phone is asked about until a reset has ended.
	Questions int

	project string
	mu      sync.Mutex
	phones  map[string]*Phone
	jobs    map[string]*job
	tokens  map[string]bool
	ticks   int // seconds since start
	logins  int
}

// Phone is one phone.
type Phone struct {
	ID, Image, Property string
	Status              int
	Updated             time.Time
	// Fails is the error code with which its resets fail; empty: they succeed.
	Fails string
	// Begun is how many resets were, and Wiped how many of them have succeeded.
	Begun, Wiped int

	job  *job // that runs
	left int  // questions until it has ended
}

type job struct {
	id, phone       string
	status          int
	code            string
	image, property string
	began, ended    time.Time
}

// start is when this world begins. Every change takes a second in it.
var start = time.Date(2026, time.January, 1, 0, 0, 0, 0, time.UTC)

// New returns a stand-in with one project and no phones.
func New(project string) *Server {
	return &Server{project: project, phones: map[string]*Phone{}, jobs: map[string]*job{}, tokens: map[string]bool{}}
}

// AddPhone adds a phone that runs.
func (s *Server) AddPhone(id string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.phones[id] = &Phone{ID: id, Image: "image-0", Status: 2, Updated: start}
}

// Phone returns how a phone is now. One that there is not is zero.
func (s *Server) Phone(id string) Phone {
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.phones[id]; ok {
		return *p
	}
	return Phone{}
}

// Change changes a phone from outside, and the time of its record.
func (s *Server) Change(id string, change func(*Phone)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(s.phones[id])
	s.phones[id].Updated = s.tick()
}

// ForgetJobs has every job be not found from now on. What they do goes on.
func (s *Server) ForgetJobs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.jobs)
}

// ForgetTokens makes every token that was given invalid.
func (s *Server) ForgetTokens() {
	s.mu.Lock()
	defer s.mu.Unlock()
	clear(s.tokens)
}

// Logins is how many tokens were asked for.
func (s *Server) Logins() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.logins
}

// tick lets a second pass.
func (s *Server) tick() time.Time {
	s.ticks++
	return start.Add(time.Duration(s.ticks) * time.Second)
}

// begin begins a reset of a phone.
func (s *Server) begin(p *Phone, image, property string) *job {
	j := &job{id: newID(), phone: p.ID, status: 1, image: image, property: property, began: s.tick()}
	s.jobs[j.id] = j
	p.job, p.left, p.Status, p.Updated = j, s.Questions, 3, j.began
	p.Begun++
	return j
}

// asked lets a reset of the phone go on.
func (s *Server) asked(p *Phone) {
	if p == nil || p.job == nil {
		return
	}
	if p.left--; p.left > 0 {
		return
	}
	j := p.job
	p.job, p.Updated = nil, s.tick()
	j.ended = p.Updated
	if p.Fails != "" {
		p.Status, j.status, j.code = -5, -1, p.Fails
		return
	}
	p.Status, j.status = 2, 2
	p.Wiped++
	if j.image != "" {
		p.Image = j.image
	}
	if j.property != "" {
		p.Property = j.property
	}
}

// newID is an ID as CPH makes them: 32 lower-case letters and digits.
func newID() string { return strings.ToLower(rand.Text() + rand.Text())[:32] }

// ServeHTTP answers as CPH does, and IAM.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := readBody(w, r)
	if err != nil {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.Method == http.MethodPost && r.URL.Path == "/v3/auth/tokens" {
		s.login(w, body)
		return
	}
	if refused := s.letIn(r, body); refused != "" {
		fail(w, http.StatusUnauthorized, "APIGW.0301", "Incorrect IAM authentication information: "+refused)
		return
	}
	path, mine := strings.CutPrefix(r.URL.Path, "/v1/"+s.project+"/cloud-phone/")
	if !mine {
		fail(w, http.StatusBadRequest, "CPS.0046", "Invalid project_id.")
		return
	}
	s.route(w, r, path, body)
}

func (s *Server) route(w http.ResponseWriter, r *http.Request, path string, body []byte) {
	phone, onePhone := strings.CutPrefix(path, "phones/")
	job, oneJob := strings.CutPrefix(path, "jobs/")
	switch {
	case r.Method == http.MethodPost && path == "phones/batch-reset":
		s.reset(w, body)
	case r.Method == http.MethodGet && path == "phones":
		s.listPhones(w)
	case r.Method == http.MethodGet && onePhone:
		s.showPhone(w, phone)
	case r.Method == http.MethodGet && oneJob:
		s.showJob(w, job)
	default:
		fail(w, http.StatusNotFound, "APIGW.0101", "The API does not exist or has not been published in the environment.")
	}
}
