package sdkhmac

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

var key = Key{Access: "AccessKey", Secret: "SecretKey"}

const tolerance = 15 * time.Minute

// vector is a request whose signature an SDK's own tests know.
type vector struct {
	name, method, url, host, body, date string
	signed                              []string // beside x-sdk-date
	signature                           string
}

// The vectors are those of AKSKSignerTest.java (huaweicloud-sdk-java-v3), test_signer.py
// (huaweicloud-sdk-python-v3) and signer_test.go (huaweicloud-sdk-go-v3 v0.1.207).
var vectors = []vector{
	{
		name: "Java 1: a query", method: "GET", date: "20191115T033655Z", signed: []string{"Host"},
		url:       "https://service.region.example.com/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpcs?limit=2&marker=13551d6b-755d-4757-b956-536f674975c0",
		signature: "fd95e7da6f695cfb4cabbb9d6b0968aec155bc576b064835282473539ae9ea1d",
	},
	{
		name: "Java 2: a body", method: "POST", date: "20191115T033655Z", signed: []string{"Host"},
		url:  "https://service.region.example.com/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpc/123",
		body: `{"key":"value"}`, signature: "b5649aa774f6cac7437631662f08815fc65c70e40e486df6db2436ce68902771",
	},
	{
		name: "Java 3: no path, another host", method: "GET", date: "20191115T033655Z", signed: []string{"Host"},
		url: "https://service.region.example.com", host: "example.com",
		signature: "919ad8b75d4ad49da0d377e63ee21c4a7a54b752f6bf2878b4adbe9c19927da6",
	},
	{
		name: "Java 4: where no key is derived", method: "GET", date: "20191115T033655Z", signed: []string{"Host"},
		url:       "https://service.test-region-1.myhuaweicloud.com/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpcs",
		signature: "fbfa53d70fa0dec48f511be2e9e522172f9dca6d56f8856d12d7e575b978d9be",
	},
	{
		name: "Java 5: the same with a body", method: "POST", date: "20191115T033655Z", signed: []string{"Host"},
		url:  "https://service.test-region-1.myhuaweicloud.com/v1/77b6a44cba5143ab91d13ab9a8ff44fd/vpc/123",
		body: `{"key":"value"}`, signature: "f65c535f8f86d95e963fbd795d6d41dbf59e675a8b4ae161356cf8cd93f1ec4c",
	},
	{
		name: "Python 1: a query", method: "GET", date: "20200608T023900Z", signed: []string{"Host"},
		url:       "https://service.endpoint.myhuaweicloud.com/resources?size=1",
		signature: "cfb4171acec81de07d50e53d57eb77edd537414d66ddb1d7d780f128e12cd842",
	},
	{
		name: "Python 2: a body", method: "POST", date: "20200608T023900Z", signed: []string{"Host"},
		url:  "https://service.endpoint.myhuaweicloud.com/resources?size=1",
		body: `{"name":"test","id":1}`, signature: "436b1ac0a1ae03705934bb70ef2f2e09f7bfed2117d731a38235053199323a1f",
	},
	{
		name: "Go 1: without Host", method: "GET", date: "20060102T150405Z",
		url:       "https://example.huaweicloud.com/path?limit=1",
		signature: "5a2ce64c865e0e6046321c6f3d5a77ba8413eeaf355c3166c03d58d02ac79624",
	},
	{ // this SDK's encoder ends a body with a line feed
		name: "Go 2: a body", method: "POST", date: "20060102T150405Z",
		url:  "https://example.huaweicloud.com/path?key=value",
		body: `{"Name":"test","Id":1}` + "\n", signature: "cecc2af119b18ab70b4d094c0750f3b42c02f254903179a0fc2cc72fc9db4f59",
	},
}

func (v vector) at(t testing.TB) time.Time {
	t.Helper()
	at, err := time.Parse(dateLayout, v.date)
	if err != nil {
		t.Fatal(err)
	}
	return at
}

// outgoing is the request as a client makes it. The SDKs' tests also set a header with _, which
// is not signed.
func (v vector) outgoing(t testing.TB) *http.Request {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), v.method, v.url, strings.NewReader(v.body))
	if err != nil {
		t.Fatal(err)
	}
	r.Host = v.host
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("TEST_UNDERSCORE", "TEST_VALUE")
	return r
}

// incoming is the signed request as a server gets it.
func (v vector) incoming(t testing.TB) *http.Request {
	t.Helper()
	u, err := url.Parse(v.url)
	if err != nil {
		t.Fatal(err)
	}
	r := httptest.NewRequestWithContext(t.Context(), v.method, "/", strings.NewReader(v.body))
	r.Host = u.Host
	if v.host != "" {
		r.Host = v.host
	}
	u.Scheme, u.Host = "", ""
	r.URL = u
	r.Header.Set(dateHeader, v.date)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("TEST_UNDERSCORE", "TEST_VALUE")
	r.Header.Set("Authorization", v.authorization())
	return r
}

func (v vector) authorization() string {
	names := "x-sdk-date"
	if len(v.signed) > 0 {
		names = "host;x-sdk-date"
	}
	return "SDK-HMAC-SHA256 Access=AccessKey, SignedHeaders=" + names + ", Signature=" + v.signature
}

func TestTheVectorsOfThreeSDKsAreSignedAlike(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			r := v.outgoing(t)
			if err := Sign(r, []byte(v.body), key, v.at(t), v.signed...); err != nil {
				t.Fatal(err)
			}
			if got := r.Header.Get("Authorization"); got != v.authorization() {
				t.Errorf("got  %s\nwant %s", got, v.authorization())
			}
		})
	}
}

func TestTheVectorsOfThreeSDKsAreAccepted(t *testing.T) {
	for _, v := range vectors {
		t.Run(v.name, func(t *testing.T) {
			r := v.incoming(t)
			s, err := Read(r)
			if err != nil {
				t.Fatal(err)
			}
			if s.Access != key.Access || !s.Date.Equal(v.at(t)) {
				t.Errorf("%+v", s)
			}
			if err := s.Verify(key.Secret, []byte(v.body), v.at(t), tolerance); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAChangeOnTheWayIsNoticed(t *testing.T) {
	for name, change := range map[string]func(r *http.Request, body *string, secret *string){
		"of the method":         func(r *http.Request, _, _ *string) { r.Method = "PUT" },
		"of the path":           func(r *http.Request, _, _ *string) { r.URL.Path += "x" },
		"of a slash in it":      func(r *http.Request, _, _ *string) { r.URL.RawPath = strings.Replace(r.URL.Path, "/v1/", "/v1%2F", 1) },
		"of the query":          func(r *http.Request, _, _ *string) { r.URL.RawQuery = "x=1" },
		"of the host":           func(r *http.Request, _, _ *string) { r.Host = "other.example.com" },
		"of a byte of the body": func(_ *http.Request, body, _ *string) { *body = strings.Replace(*body, "k", "K", 1) },
		"of its end":            func(_ *http.Request, body, _ *string) { *body += "\n" },
		"of the date": func(r *http.Request, _, _ *string) {
			r.Header.Set(dateHeader, "20191115T033656Z")
		},
		"of the secret": func(_ *http.Request, _, secret *string) { *secret = "secretKey" },
		"of the signature": func(r *http.Request, _, _ *string) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "Signature=b", "Signature=c", 1))
		},
		"of what is signed": func(r *http.Request, _, _ *string) {
			r.Header.Set("Authorization", strings.Replace(r.Header.Get("Authorization"), "host;", "", 1))
		},
	} {
		t.Run(name, func(t *testing.T) {
			v := vectors[1]
			r, body, secret := v.incoming(t), v.body, key.Secret
			change(r, &body, &secret)
			s, err := Read(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(secret, []byte(body), v.at(t), tolerance); !errors.Is(err, ErrMismatch) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestAHeaderThatIsNotSignedMayChange(t *testing.T) {
	v := vectors[7] // Go 1 does not sign Host
	r := v.incoming(t)
	r.Host = "behind.a.proxy"
	r.Header.Set("User-Agent", "another")
	s, err := Read(r)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify(key.Secret, nil, v.at(t), tolerance); err != nil {
		t.Error(err)
	}
}

func TestADateIsAcceptedWithinTheTolerance(t *testing.T) {
	v := vectors[1]
	for off, want := range map[time.Duration]error{
		tolerance: nil, -tolerance: nil,
		tolerance + time.Second: ErrDate, -tolerance - time.Second: ErrDate, 24 * time.Hour: ErrDate,
	} {
		s, err := Read(v.incoming(t))
		if err != nil {
			t.Fatal(err)
		}
		if err := s.Verify(key.Secret, []byte(v.body), v.at(t).Add(off), tolerance); !errors.Is(err, want) {
			t.Errorf("%s later: %v, want %v", off, err, want)
		}
	}
}

func TestWhatIsNoSignatureIsToldApart(t *testing.T) {
	good := vectors[1].authorization()
	for _, c := range []struct {
		name, authorization string
		want                error
		says                string
	}{
		{"nothing", "", ErrNone, ""},
		{"a bearer token", "Bearer SDK-HMAC-SHA256", ErrNone, ""},
		{"a derived key", "V11-HMAC-SHA256 Credential=AccessKey/20191115/region-id-1/service, SignedHeaders=host;x-sdk-date, Signature=00", ErrAlgorithm, "V11-HMAC-SHA256, whose key is derived"},
		{"SM3", strings.Replace(good, "SHA256", "SM3", 1), ErrAlgorithm, `"SDK-HMAC-SM3"`},
		{"ECDSA", "SDK-ECDSA-P256-SHA256 Access=A", ErrAlgorithm, `"SDK-ECDSA-P256-SHA256"`},
		{"no fields", Algorithm, ErrMalformed, ""},
		{"no access key", strings.Replace(good, "Access=AccessKey, ", "", 1), ErrMalformed, "must have Access"},
		{"an empty access key", strings.Replace(good, "AccessKey", "", 1), ErrMalformed, `"Access"`},
		{"a field twice", good + ", Access=Other", ErrMalformed, `"Access"`},
		{"an unknown field", good + ", Region=x", ErrMalformed, "nothing else"},
		{"no signed headers", strings.Replace(good, "host;x-sdk-date", "", 1), ErrMalformed, "SignedHeaders"},
		{"the date not signed", strings.Replace(good, "host;x-sdk-date", "host", 1), ErrMalformed, "must list x-sdk-date"},
		{"a signature in capitals", good[:len(good)-4] + strings.ToUpper("b77a"), ErrMalformed, "lower-case"},
		{"a short signature", good[:len(good)-2], ErrMalformed, "64"},
		{"a long signature", good + "00", ErrMalformed, "64"},
		{"no hexadecimal signature", good[:len(good)-2] + "zz", ErrMalformed, "64"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := vectors[1].incoming(t)
			r.Header.Del("Authorization")
			if c.authorization != "" {
				r.Header.Set("Authorization", c.authorization)
			}
			_, err := Read(r)
			if !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v, want %v: %s", err, c.want, c.says)
			}
		})
	}
}

func TestASignedHeaderMustBeThereOnce(t *testing.T) {
	for name, change := range map[string]func(http.Header){
		"missing": func(h http.Header) {
			h.Set("Authorization", strings.Replace(h.Get("Authorization"), "host;", "host;x-project-id;", 1))
		},
		"twice": func(h http.Header) { h.Add(dateHeader, h.Get(dateHeader)) },
	} {
		t.Run(name, func(t *testing.T) {
			v := vectors[1]
			r := v.incoming(t)
			change(r.Header)
			s, err := Read(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(key.Secret, []byte(v.body), v.at(t), tolerance); !errors.Is(err, ErrMalformed) {
				t.Errorf("got %v", err)
			}
		})
	}
	for _, date := range []string{"", "now", "2019-11-15T03:36:55Z"} {
		r := vectors[1].incoming(t)
		r.Header.Set(dateHeader, date)
		if _, err := Read(r); !errors.Is(err, ErrMalformed) {
			t.Errorf("date %q: %v", date, err)
		}
	}
}

// sent signs a request and returns it as a server gets it.
func sent(t *testing.T, method, target, body string, headers map[string]string) *http.Request {
	t.Helper()
	r := httptest.NewRequestWithContext(t.Context(), method, target, nil)
	names := make([]string, 0, len(headers))
	for name, value := range headers {
		r.Header.Set(name, value)
		names = append(names, name)
	}
	if err := Sign(r, []byte(body), key, time.Now(), names...); err != nil {
		t.Fatal(err)
	}
	return r
}

func TestTheBodyIsAlwaysCovered(t *testing.T) {
	for _, c := range []struct {
		name, stated, signed, received string
		want                           error
	}{
		{"its hash, stated", hash([]byte("{}")), "{}", "{}", nil},
		{"its hash, stated, and another body", hash([]byte("{}")), "{}", "[]", ErrMismatch},
		{"left out where there is none", unsigned, "", "", nil},
		{"left out, and then there is one", unsigned, "", "{}", ErrMismatch},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := sent(t, "POST", "http://example.com/v1/instances", c.signed, map[string]string{hashHeader: c.stated})
			s, err := Read(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Verify(key.Secret, []byte(c.received), time.Now(), tolerance); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

func TestTheCanonicalQueryOfThePythonAndGoSDKs(t *testing.T) {
	u := url.URL{RawQuery: url.Values{
		"limit": {"1"}, "enable": {"true"}, "test": {"一 (&=?!#%.*)"}, "path": {"/tmp/123"}, "multi": {"3", "1", "2"},
	}.Encode()}
	const want = "enable=true&limit=1&multi=1&multi=2&multi=3&path=%2Ftmp%2F123&test=%E4%B8%80%20%28%26%3D%3F%21%23%25.%2A%29"
	if got, err := canonicalQuery(&u); err != nil || got != want {
		t.Errorf("%v\ngot  %s\nwant %s", err, got, want)
	}
	u.RawQuery = "a;b=%zz"
	if _, err := canonicalQuery(&u); !errors.Is(err, ErrMalformed) {
		t.Errorf("a query that cannot be read: %v", err)
	}
}

func TestTheCanonicalPath(t *testing.T) {
	for path, want := range map[string]string{
		"": "/", "/": "/", "/a": "/a/", "/a/": "/a/", "/a:b": "/a%3Ab/", "/a%2Fb": "/a%2Fb/", "/a%20b~": "/a%20b~/", "/一": "/%E4%B8%80/", "/a//b": "/a//b/",
	} {
		u, err := url.Parse("http://example.com" + path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := canonicalPath(u); err != nil || got != want {
			t.Errorf("%s: %s (%v), want %s", path, got, err, want)
		}
	}
}

func TestWhatCannotBeSignedIsRefused(t *testing.T) {
	r := httptest.NewRequestWithContext(t.Context(), "GET", "/", nil)
	if err := Sign(r, nil, Key{Access: "a"}, time.Now()); err == nil {
		t.Error("signed with an empty secret")
	}
	if err := Sign(r, nil, key, time.Now(), "a_b"); err == nil || !strings.Contains(err.Error(), `"a_b"`) {
		t.Errorf("a header that proxies drop: %v", err)
	}
	if err := Sign(r, nil, key, time.Now(), "X-Project-Id"); !errors.Is(err, ErrMalformed) {
		t.Errorf("a header that is not set: %v", err)
	}
	s, err := Read(sent(t, "GET", "/", "", nil))
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Verify("", nil, time.Now(), tolerance); err == nil {
		t.Error("accepted without a secret")
	}
}

func FuzzReadNeverPanics(f *testing.F) {
	f.Add(vectors[0].authorization(), "20191115T033655Z", "a=b", "body")
	f.Fuzz(func(t *testing.T, authorization, date, query, body string) {
		r := httptest.NewRequestWithContext(t.Context(), "POST", "/", nil)
		r.URL.RawQuery = query
		r.Header["Authorization"] = []string{authorization}
		r.Header[dateHeader] = []string{date}
		s, err := Read(r)
		if err != nil {
			return
		}
		if err := s.Verify("a secret that nobody has", []byte(body), s.Date, tolerance); err == nil {
			t.Error("accepted")
		}
	})
}
