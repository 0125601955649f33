package terminal

import (
	"bytes"
	"testing"
)

func TestTheFormOfErrors(t *testing.T) {
	for _, row := range []struct {
		environment string
		args        []string
		want        Output
	}{
		{"", nil, ""},
		{"yaml", nil, "yaml"},
		{"yaml", []string{"jobs", "--limit", "3", "-o", "json"}, "json"},
		{"xml", []string{"jobs", "-o"}, ""},
		{"", []string{"submit", "-f", "-", "-o", "jsonl"}, "jsonl"},
	} {
		if got := outputOf(row.args, map[string]string{"BATCHRESET_OUTPUT": row.environment}); got != row.want {
			t.Errorf("%v %v: %q, want %q", row.environment, row.args, got, row.want)
		}
	}
}

func TestForms(t *testing.T) {
	type within struct {
		A int      `json:"a"`
		B []string `json:"b"`
	}
	row := struct {
		Z    string         `json:"z"`
		Text string         `json:"text"`
		W    *within        `json:"w,omitempty"`
		Many []within       `json:"many"`
		Map  map[string]int `json:"map"`
	}{"=no", "two\nlines \u001b[31m", &within{-1, []string{"no", "[y]"}}, []within{{1, nil}}, map[string]int{"k": 1}}
	show := func(form Output, v View) string {
		t.Helper()
		var out bytes.Buffer
		if err := form.Show(&out, v); err != nil {
			t.Fatal(err)
		}
		return out.String()
	}
	yamlText := show("yaml", View{Document: row})
	want := "z: =no\ntext: \"two\\nlines \\e[31m\"\nw:\n  a: -1\n  b:\n    - \"no\"\n    - '[y]'\nmany:\n  - a: 1\n    b: null\nmap:\n  k: 1\n"
	if yamlText != want {
		t.Errorf("YAML\n%s\nwant\n%s", yamlText, want)
	}
	csvText := show("csv", View{Document: row, Columns: []string{"z", "text", "w.a", "w.b", "w.c.d", "many", "map", "map.k", "absent"}})
	want = "z,text,w.a,w.b,w.c.d,many,map,map.k,absent\n'=no,\"two\nlines \x1b[31m\",-1,no [y],,\"[{\"\"a\"\":1,\"\"b\"\":null}]\",\"{\"\"k\"\":1}\",1,\n"
	if csvText != want {
		t.Errorf("CSV\n%s\nwant\n%s", csvText, want)
	}
	if got := show("table", View{Document: row, Columns: []string{"z", "text"}}); got != "Z    TEXT\n=no  two lines [U+001B][31m\n" {
		t.Errorf("table %q", got)
	}
}
