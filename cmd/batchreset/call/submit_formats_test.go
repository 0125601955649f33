package call

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"batchreset/cmd/batchreset/terminal/terminaltest"
)

func TestLists(t *testing.T) {
	for name, row := range map[string]struct {
		text string
		want string
	}{
		"a header alone":               {"instance_id\np-1\np-2\n", "p-1 p-2"},
		"a header after a comment":     {"\ufeff# recall 7\r\n\r\ninstance_id\r\np-1\r\n# not p-9\r\np-2\r\n", "p-1 p-2"},
		"a header in quotes":           {"\"instance_id\"\n\"p-1\"\n", "p-1"},
		"our fleet.csv":                {"instance_id,tenant,protected\np-1,acme,\np-2,acme,true\n", "p-1 p-2"},
		"its columns in another order": {"tenant,instance_id\nacme,p-1\n", "p-1"},
		"a result":                     {resultHead + "p-1," + job1 + "," + job1 + "-0,failed,1,CPS.0005,\"no,\n# luck; p-9\",,\n'-p,,,refused,0,,,,\n", "p-1 -p"},
		"a result in JSON":             {`{"instance_id":"p-1","job_id":"` + job1 + `","item_id":"` + job1 + `-0","state":"failed","attempts":1}` + "\n\n" + `{"instance_id":"p-2","state":"refused","attempts":0}`, "p-1 p-2"},
		"fleet list --output json":     {`{"instance_id":"p-1","tenant":"acme","protected":true}` + "\n", "p-1"},
		"repeats":                      {"p-1\np-2\np-1", "p-1 p-2"},
		"no line end at the end":       {"p-1\r\n# p-2", "p-1"},
	} {
		t.Run(name, func(t *testing.T) {
			list, err := readInstances(nil, terminaltest.File(t, row.text), nil)
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Join(list.ids, " "); err != nil || got != row.want {
				t.Errorf("%s, %v, want %s", got, err, row.want)
			}
		})
	}
	utf16 := func(order string) string {
		text := order
		for _, b := range []byte("p-1\np-2\n") {
			if order == "\xff\xfe" {
				text += string([]byte{b, 0})
			} else {
				text += string([]byte{0, b})
			}
		}
		return text
	}
	for name, row := range map[string]struct {
		text string
		want string
	}{
		"a number sign in a line":       {"p-1\np-0001#2\n", `line 2: instance ID "p-0001#2" has characters`},
		"a comment behind an ID":        {"p-1 # old\n", `line 1: instance ID "p-1 # old" has characters other than A-Z a-z 0-9 . _ : -; a comment is a line that begins with #`},
		"UTF-16":                        {utf16("\xff\xfe"), "line 1: it is in UTF-16; save it as UTF-8"},
		"UTF-16 of the other order":     {utf16("\xfe\xff"), "line 1: it is in UTF-16"},
		"UTF-16 without a mark":         {utf16("\xff\xfe")[2:], "line 1: there is a NUL character in it"},
		"a NUL":                         {"p-1\n# a\x00\n", "line 2: there is a NUL"},
		"two files put together":        {"p-1\n\ufeffp-2\n", "line 2: there is a byte order mark in it"},
		"two tables put together":       {"instance_id\np-1\ninstance_id\np-2\n", "line 3: instance_id is the name of a column"},
		"semicolons":                    {"p-1\np-2;acme\n", "line 2: there is a semicolon in it; give one instance ID per line, or a CSV with commas"},
		"a table with semicolons":       {"instance_id;tenant\np-1;acme\n", "line 1: there is a semicolon in it"},
		"a table with tabs":             {"instance_id\ttenant\np-1\tacme\n", "line 1: there is a tab in it"},
		"a tab behind an ID":            {"p-1\t\n", "line 1: there is a tab in it"},
		"a line for a spreadsheet":      {"sep=;\ninstance_id;tenant\n", `line 1: "sep=" is for a spreadsheet`},
		"another line for it":           {"SEP=,\ninstance_id,tenant\np-1,acme\n", `line 1: "sep=" is for a spreadsheet`},
		"columns without a header":      {"p-1,acme\n", "line 1: there is a comma in it; give one instance ID per line, or a CSV with commas whose first line names the column instance_id"},
		"a header that is another's":    {"id,tenant\np-1,acme\n", "line 1: there is a comma in it"},
		"a header in another spelling":  {"Instance-ID\np-1\n", `line 1: "Instance-ID" looks like the name of a column, which must be instance_id`},
		"an unknown column":             {"instance_id,site\np-1,lab\n", `line 1: unknown column "site"`},
		"the column twice":              {"instance_id,instance_id\np-1,p-2\n", "line 1: the column instance_id is there twice"},
		"a short row":                   {"instance_id,tenant\np-1\n", "line 2: wrong number of fields"},
		"a bad ID in a table":           {"# x\ninstance_id,tenant\np-1,acme\np 2,acme\n", `line 4: instance ID "p 2" has characters`},
		"an empty cell":                 {"instance_id,tenant\n,acme\n", "line 2: instance ID is empty"},
		"quotes":                        {"\"p-1\"\n", "line 1: there is a quote in it"},
		"other quotes":                  {"p-1\n'p-2'\n", "line 2: there is a quote in it"},
		"line ends of an old Mac":       {"p-1\rp-2\r", "line 1: there is a CR in it without an LF"},
		"the same after a comment":      {"# list\rp-1\rp-2\r", "line 1: there is a CR in it"},
		"the same in a table":           {"instance_id,tenant\rp-1,acme\r", "line 1: there is a CR in it"},
		"JSON that is no row":           {`{"instance_id":"p-1","state":"failed","attempts":1,"Site":"lab"}`, `line 1 is neither a row of a result nor an entry of the fleet: it has the unknown field "Site"`},
		"a JSON array":                  {`[{"instance_id":"p-1"}]`, "line 1: there is a quote"},
		"a space that is none of ASCII": {"p-1\u00a0\n", "line 1: instance ID"},
	} {
		t.Run("refuses "+name, func(t *testing.T) {
			path := terminaltest.File(t, row.text)
			list, err := readInstances(nil, path, nil)
			if err == nil || !strings.Contains(err.Error(), row.want) || !strings.Contains(err.Error(), "--file "+path) {
				t.Errorf("%+v, %v, want %s", list, err, row.want)
			}
		})
	}
	t.Run("refuses the name of the column among the arguments", func(t *testing.T) {
		if _, err := readInstances([]string{"p-1", "instance_id"}, "", nil); err == nil || !strings.Contains(err.Error(), "argument 2: instance_id is the name of a column") {
			t.Error(err)
		}
	})
}

func TestSubmitReadsWhatTheCommandsWrite(t *testing.T) {
	for _, extension := range []string{".csv", ".jsonl"} {
		s := newFakeService(t)
		path := filepath.Join(t.TempDir(), "r"+extension)
		list := strings.NewReader("phone-1\n-phone\nfailed-1\n")
		s.callWith(t.Context(), list, "submit", "--file", "-", "--result", path)
		s.call(t, "submit", "--file", path)
		sent := s.Sent()
		if got := sent[len(sent)-1]; !slices.Equal(got, []string{"phone-1", "-phone", "failed-1"}) {
			t.Errorf("%s: sent %q", extension, got)
		}
	}
}

func TestAListThatIsTooLarge(t *testing.T) {
	path := terminaltest.File(t, "")
	if err := os.Truncate(path, maxList+1); err != nil {
		t.Fatal(err)
	}
	if _, err := readInstances(nil, path, nil); err == nil || !strings.Contains(err.Error(), "is larger than 128 MiB") {
		t.Error(err)
	}
}
