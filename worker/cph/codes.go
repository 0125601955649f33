package cph

import (
	"net/http"
	"regexp"
	"strings"

	"batchreset/worker"
)

// class is what an answer means for the call that it answers.
type class int

const (
	doubtful class = iota // nobody can say whether the call did anything
	later                 // not done: try again
	busy                  // not done: the phone is occupied
	hopeless              // not done, and trying again is of no use
	shut                  // not done: we are not let in, or nobody is there
	gone                  // the job that was asked about is not known
)

// verdict is what becomes of a reset that was not sent, or refused.
func (c class) verdict() worker.Verdict {
	switch c {
	case later:
		return worker.Retryable
	case busy:
		return worker.Busy
	case hopeless:
		return worker.Permanent
	case shut:
		return worker.Unreachable
	}
	return worker.Unknown
}

// codes is the one place that says what a code means, wherever it stands: in an error answer, or
// with a phone inside a 200. CPS codes are CPH's own, from its page "Error Codes", which lists
// every one of them under HTTP 400, so that the status says nothing. APIGW codes are those of the
// gateway in front, from the "API Request Signing Guide"; those that it has for several statuses,
// such as 0201, are left to the status. So is what is in neither table.
var codes = map[string]class{
	"CPS.0003": doubtful, // internal error: anywhere on its way
	"CPS.0054": doubtful, // the job timed out
	"CPS.0042": later,    // system busy
	"CPS.0099": later,    // server not ready

	"CPS.0022": busy, // phone not available
	"CPS.0023": busy, // another request for the phone
	"CPS.0105": busy, // state of the host
	"CPS.0141": busy, // phone not running
	"CPS.0165": busy, // phone neither running nor stopped

	"CPS.0004": hopeless, // invalid phone ID
	"CPS.0005": hopeless, // phone not found
	"CPS.0009": hopeless, // no phones in the request
	"CPS.0030": hopeless, // invalid image_id
	"CPS.0053": hopeless, // phone frozen
	"CPS.0077": hopeless, // invalid list of phones
	"CPS.0078": hopeless, // invalid property
	"CPS.0080": hopeless, // invalid phone IDs
	"CPS.0081": hopeless, // no phone IDs
	"CPS.0163": hopeless, // property not supported
	"CPS.0164": hopeless, // invalid property
	"CPS.0166": hopeless, // image not found
	"CPS.0190": hopeless, // too many phones

	"CPS.0001": shut, // no permission, or a token that is not the project's
	"CPS.0006": shut, // account restricted
	"CPS.0007": shut, // account suspended
	"CPS.0008": shut, // account not verified
	"CPS.0046": shut, // invalid project_id

	"CPS.0011": gone, // job not found
	"CPS.0048": gone, // no job_id
	"CPS.0050": gone, // no jobs

	"APIGW.0101": shut, // no such API: wrong endpoint
	"APIGW.0301": shut, // credentials are wrong
	"APIGW.0302": shut, // user not authorised
	"APIGW.0303": shut, // app credentials are wrong
	"APIGW.0304": shut, // app not authorised
	"APIGW.0305": shut, // credentials are wrong
	"APIGW.0306": shut, // access denied
	"APIGW.0307": shut, // token expired
	"APIGW.0310": shut, // project frozen
	"APIGW.0401": shut, // address not known
	"APIGW.0402": shut, // address not allowed
	"APIGW.0308": later,
}

var undotted = regexp.MustCompile(`^([A-Z]+)(\d{4})$`)

// plainCode is a code as the table has it. Some places print CPS codes without the dot, and some
// gateways call themselves APIG.
func plainCode(code string) string {
	code = strings.ToUpper(code)
	if parts := undotted.FindStringSubmatch(code); parts != nil {
		code = parts[1] + "." + parts[2]
	}
	if number, ok := strings.CutPrefix(code, "APIG."); ok {
		code = "APIGW." + number
	}
	return code
}

func classOf(code string) (c class, known bool) {
	c, known = codes[plainCode(code)]
	return c, known
}

// classify says what an answer that is no success means: by its code, or else by its status. CPH
// says everything with 400, an internal error too, so without a code 400 says nothing, and with one
// that is not known it is a refusal, for a reason that may pass.
func classify(said reply, code string) class {
	if c, known := classOf(code); known {
		return c
	}
	switch _, readable := said.RetryAfter(); {
	case said.Status == http.StatusUnauthorized:
		return shut
	case said.Status == http.StatusRequestTimeout, said.Status == http.StatusTooEarly, said.Status == http.StatusTooManyRequests:
		return later
	case said.Status == http.StatusServiceUnavailable && readable:
		return later
	case said.Status == http.StatusBadRequest && code == "":
		return doubtful
	case said.Status == http.StatusBadRequest:
		return later
	case said.Status/100 == 3, said.Status/100 == 4:
		return hopeless // redirects are not followed
	}
	return doubtful
}
