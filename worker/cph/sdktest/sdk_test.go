// Package sdktest lets Huawei Cloud's own SDK for Go judge what the driver is made with: it calls
// the stand-in for CPH, answers the driver with its own models, and signs the driver's requests.
package sdktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/basic"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/auth/signer"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/config"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/request"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/core/sdkerr"
	sdk "github.com/huaweicloud/huaweicloud-sdk-go-v3/services/cph/v1"
	"github.com/huaweicloud/huaweicloud-sdk-go-v3/services/cph/v1/model"

	"batchreset/worker"
	"batchreset/worker/cph"
	"batchreset/worker/cph/cphtest"
)

const (
	project   = "0123456789abcdef0123456789abcdef"
	phoneID   = "a7f3a1c5258347d6b6f1def79e11f2bc"
	accessKey = "ACCESSKEY"
	secretKey = "a secret key"
)

func newFake() *cphtest.Server {
	fake := cphtest.New(project)
	fake.Keys = map[string]string{accessKey: secretKey}
	fake.Questions = 2
	fake.AddPhone(phoneID)
	return fake
}

// serve starts a server and keeps what it was asked.
func serve(t *testing.T, h http.Handler) (string, *log) {
	t.Helper()
	l := &log{}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		l.add(asked{r.Method, r.URL, r.Host, r.Header.Clone(), body})
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s.URL, l
}

// asked is one request.
type asked struct {
	method string
	url    *url.URL
	host   string
	header http.Header
	body   []byte
}

type log struct {
	mu  sync.Mutex
	all []asked
}

func (l *log) add(a asked) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, a)
}

// only returns the one request with this method.
func (l *log) only(t *testing.T, method string) asked {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	var found []asked
	for _, a := range l.all {
		if a.method == method {
			found = append(found, a)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d requests with %s", len(found), method)
	}
	return found[0]
}

// client is the official one. Without a user agent of ours it would write a file to the home
// directory, which is another one here all the same.
func client(t *testing.T, endpoint, secret string) *sdk.CphClient {
	t.Helper()
	t.Setenv("HOME", t.TempDir())
	credentials, err := basic.NewCredentialsBuilder().WithAk(accessKey).WithSk(secret).WithProjectId(project).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	settings := config.DefaultHttpConfig().WithTimeout(20 * time.Second).WithUserAgent("batchreset-test/1")
	hc, err := sdk.CphClientBuilder().WithEndpoint(endpoint).WithCredential(credentials).WithHttpConfig(settings).SafeBuild()
	if err != nil {
		t.Fatal(err)
	}
	return sdk.NewCphClient(hc)
}

// driver is ours.
func driver(t *testing.T, endpoint string) *cph.Driver {
	t.Helper()
	file := func(name, text string) string {
		path := filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	d, err := cph.New(cph.Config{
		Endpoint: endpoint, ProjectID: project, PollInterval: time.Millisecond,
		AccessKeyFile: file("access", accessKey), SecretKeyFile: file("secret", secretKey),
		ImageID: "image-7", Property: `{"sys.prop.writewifissid":"lab"}`,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

func attempt() worker.Attempt {
	return worker.Attempt{
		InstanceID: "instance-1", Address: phoneID, ItemID: "job-0", Number: 1, Key: "key-1", Deadline: time.Now().Add(time.Minute),
		MaySend: func() error { return nil },
		Save:    func(context.Context, string) error { return nil },
	}
}

func order(id string) *model.ResetCloudPhoneRequest {
	return &model.ResetCloudPhoneRequest{Body: &model.ResetCloudPhoneRequestBody{
		ImageId: new("image-7"),
		Phones:  []model.PhoneProperty{{PhoneId: id, Property: new(`{"sys.prop.writewifissid":"lab"}`)}},
	}}
}

func TestTheSDKResetsAPhoneOfTheStandIn(t *testing.T) {
	fake := newFake()
	endpoint, _ := serve(t, fake)
	c := client(t, endpoint, secretKey)
	accepted, err := c.ResetCloudPhone(order(phoneID))
	if err != nil {
		t.Fatal(err)
	}
	if accepted.HttpStatusCode != 200 || accepted.RequestId == nil || len(*accepted.Jobs) != 1 || *(*accepted.Jobs)[0].PhoneId != phoneID {
		t.Fatalf("got %v", accepted)
	}
	job := *(*accepted.Jobs)[0].JobId
	shown, err := c.ShowCloudPhoneDetail(&model.ShowCloudPhoneDetailRequest{PhoneId: phoneID})
	if err != nil || *shown.Status != 3 {
		t.Fatalf("got %v, %v", shown, err)
	}
	ended, err := c.ShowJob(&model.ShowJobRequest{JobId: job})
	if err != nil || *ended.Status != 2 || *ended.JobId != job || *ended.PhoneId != phoneID || ended.ErrorCode != nil {
		t.Fatalf("got %v, %v", ended, err)
	}
	shown, err = c.ShowCloudPhoneDetail(&model.ShowCloudPhoneDetailRequest{PhoneId: phoneID})
	if err != nil || *shown.Status != 2 || *shown.ImageId != "image-7" {
		t.Fatalf("got %v, %v", shown, err)
	}
	list, err := c.ListCloudPhones(&model.ListCloudPhonesRequest{})
	if err != nil || *list.Count != 1 || *(*list.Phones)[0].PhoneId != phoneID {
		t.Fatalf("got %v, %v", list, err)
	}
	if p := fake.Phone(phoneID); p.Begun != 1 || p.Wiped != 1 {
		t.Errorf("%+v", p)
	}
}

func TestTheSDKReadsTheRefusalsOfTheStandIn(t *testing.T) {
	endpoint, _ := serve(t, newFake())
	c := client(t, endpoint, secretKey)
	accepted, err := c.ResetCloudPhone(order("nobody"))
	if err != nil || *(*accepted.Jobs)[0].ErrorCode != "CPS.0005" || (*accepted.Jobs)[0].JobId != nil {
		t.Errorf("got %v, %v", accepted, err)
	}
	for name, row := range map[string]struct {
		err    error
		status int
		code   string
	}{
		"no phones":    {second(c.ResetCloudPhone(&model.ResetCloudPhoneRequest{Body: &model.ResetCloudPhoneRequestBody{}})), 400, "CPS.0009"},
		"no such job":  {second(c.ShowJob(&model.ShowJobRequest{JobId: "job-1"})), 400, "CPS.0011"},
		"wrong secret": {second(client(t, endpoint, "another").ShowJob(&model.ShowJobRequest{JobId: "job-1"})), 401, "APIGW.0301"},
	} {
		var e *sdkerr.ServiceResponseError
		if !errors.As(row.err, &e) || e.StatusCode != row.status || e.ErrorCode != row.code {
			t.Errorf("%s: got %v", name, row.err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestTheDriverAsksForTheSameAsTheSDK(t *testing.T) {
	endpoint, theirs := serve(t, newFake())
	if _, err := client(t, endpoint, secretKey).ResetCloudPhone(order(phoneID)); err != nil {
		t.Fatal(err)
	}
	endpoint, ours := serve(t, newFake())
	if err := driver(t, endpoint).Reset(t.Context(), attempt()); err != nil {
		t.Fatal(err)
	}
	want, got := theirs.only(t, http.MethodPost), ours.only(t, http.MethodPost)
	if got.url.Path != want.url.Path || got.url.RawQuery != want.url.RawQuery {
		t.Errorf("asked for %s, and the SDK for %s", got.url, want.url)
	}
	for _, name := range []string{"Content-Type", "X-Project-Id"} {
		if got.header.Get(name) != want.header.Get(name) {
			t.Errorf("%s %q, and the SDK %q", name, got.header.Get(name), want.header.Get(name))
		}
	}
	if plain(t, got.body) != plain(t, want.body) {
		t.Errorf("sent %s, and the SDK %s", got.body, want.body)
	}
}

// plain is JSON in one spelling.
func plain(t *testing.T, body []byte) string {
	t.Helper()
	var v any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(out)
}

func TestTheSDKSignsTheDriversRequestsAlike(t *testing.T) {
	endpoint, ours := serve(t, newFake())
	d := driver(t, endpoint)
	if err := d.Check(t.Context()); err != nil { // has a query
		t.Fatal(err)
	}
	if err := d.Reset(t.Context(), attempt()); err != nil {
		t.Fatal(err)
	}
	if len(ours.all) < 5 {
		t.Fatalf("%d requests", len(ours.all))
	}
	for _, a := range ours.all {
		theirs, err := signer.Sign(a.forTheSDK(endpoint), accessKey, secretKey)
		if err != nil {
			t.Fatal(err)
		}
		if got, want := a.header.Get("Authorization"), theirs["Authorization"]; got != want {
			t.Errorf("%s %s\ngot  %s\nwant %s", a.method, a.url, got, want)
		}
	}
}

// forTheSDK is a request as the SDK has it before it is signed: of the headers only those that
// are signed, because it signs all that it has.
func (a asked) forTheSDK(endpoint string) *request.DefaultHttpRequest {
	b := request.NewHttpRequestBuilder().WithMethod(a.method).WithEndpoint(endpoint).WithPath(a.url.Path)
	_, names, _ := strings.Cut(a.header.Get("Authorization"), "SignedHeaders=")
	names, _, _ = strings.Cut(names, ",")
	a.header.Set("Host", a.host)
	for name := range strings.SplitSeq(names, ";") {
		name = http.CanonicalHeaderKey(name)
		b.AddHeaderParam(name, a.header.Get(name))
	}
	b.AddHeaderParam("Content-Type", "application/json") // is not signed
	for name, values := range a.url.Query() {
		b.AddQueryParam(name, reflect.ValueOf(values))
	}
	if len(a.body) > 0 {
		b.WithBody("body", string(a.body))
	}
	return b.Build()
}

func TestTheDriverUnderstandsTheSDKsModels(t *testing.T) {
	status, code := int32(2), int32(1)
	answer := func(w http.ResponseWriter, v any) {
		w.Header().Set("Content-Type", "application/json")
		if err := json.NewEncoder(w).Encode(v); err != nil {
			t.Error(err)
		}
	}
	endpoint, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodPost:
			var got model.ResetCloudPhoneRequestBody
			d := json.NewDecoder(r.Body)
			d.DisallowUnknownFields()
			if err := d.Decode(&got); err != nil || !reflect.DeepEqual(&got, order(phoneID).Body) {
				t.Errorf("got %v, %v", got, err)
			}
			answer(w, model.ResetCloudPhoneResponse{RequestId: new("request-1"), Jobs: &[]model.PhoneJob{{PhoneId: new(phoneID), JobId: new("job-1")}}})
		case strings.Contains(r.URL.Path, "/jobs/"):
			answer(w, model.ShowJobResponse{JobId: new("job-1"), PhoneId: new(phoneID), Status: &code, BeginTime: new("2026-01-01T00:00:00Z")})
			code = status
		default:
			answer(w, model.ShowCloudPhoneDetailResponse{PhoneId: new(phoneID), Status: &status, ImageId: new("image-7"), UpdateTime: new("2026-01-01T00:00:00Z")})
		}
	}))
	if err := driver(t, endpoint).Reset(t.Context(), attempt()); err != nil {
		t.Error(err)
	}
}

func TestASignedRequestOfTheSDKThatIsChangedOnTheWayIsRefused(t *testing.T) {
	fake := newFake()
	for name, change := range map[string]func(r *http.Request, body []byte) []byte{
		"another phone": func(_ *http.Request, body []byte) []byte {
			fake.AddPhone("other")
			return bytes.ReplaceAll(body, []byte(phoneID), []byte("other"))
		},
		"another user agent": func(r *http.Request, body []byte) []byte {
			r.Header.Set("User-Agent", "a proxy")
			return body
		},
	} {
		t.Run(name, func(t *testing.T) {
			endpoint, _ := serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body) // is in memory
				r.Body = io.NopCloser(bytes.NewReader(change(r, body)))
				fake.ServeHTTP(w, r)
			}))
			_, err := client(t, endpoint, secretKey).ResetCloudPhone(order(phoneID))
			var e *sdkerr.ServiceResponseError
			if !errors.As(err, &e) || e.ErrorCode != "APIGW.0301" {
				t.Errorf("got %v", err)
			}
			if fake.Phone(phoneID).Begun+fake.Phone("other").Begun != 0 {
				t.Error("reset")
			}
		})
	}
}

func TestTheSDKLeavesNothingInTheHomeDirectory(t *testing.T) {
	endpoint, _ := serve(t, newFake())
	if _, err := client(t, endpoint, secretKey).ShowCloudPhoneDetail(&model.ShowCloudPhoneDetailRequest{PhoneId: phoneID}); err != nil {
		t.Fatal(err)
	}
	if left, err := os.ReadDir(os.Getenv("HOME")); err != nil || len(left) != 0 {
		t.Errorf("left %v, %v", left, err)
	}
}
