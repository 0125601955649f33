package tasks_test

import (
	"strings"
	"testing"
	"unicode/utf8"

	"batchreset/tasks"
)

func TestWhatIsNotSeenIsShown(t *testing.T) {
	for in, want := range map[string]string{
		"":                                  "",
		"Köln 東京 ⚠️ é عربى \"<&>":           "Köln 東京 ⚠️ é عربى \"<&>",
		"invoice\u202efdp.exe":              "invoice[U+202E]fdp.exe",
		"a\u200bcme":                        "a[U+200B]cme",
		"\u061cx\u200e\u200f":               "[U+061C]x[U+200E][U+200F]",
		"a\x1b[31mred\x07\x00\x7f":          "a[U+001B][31mred[U+0007][U+0000][U+007F]",
		"two\nlines\r\nand\ttabs":           "two lines  and tabs",
		"no\u00a0break\u2028line\u3000wide": "no break line wide",
		"\ufefffirst":                       "[U+FEFF]first",
		"soft\u00adhyphen":                  "soft[U+00AD]hyphen",
		"\u3164\u115f\uffa0\u034f":          "[U+3164][U+115F][U+FFA0][U+034F]",
		"\ue000 \U000e0041":                 "[U+E000] [U+E0041]",
		"cut \xff off":                      "cut \ufffd off",
	} {
		if got := tasks.Visible(in); got != want {
			t.Errorf("%q is shown as %q, want %q", in, got, want)
		}
	}
	// All that turns the direction of the writing.
	for r := '\u202a'; r <= '\u2069'; r++ {
		if r > '\u202e' && r < '\u2066' {
			continue
		}
		if got := tasks.Visible("a" + string(r)); strings.ContainsRune(got, r) || !strings.HasPrefix(got, "a[U+20") {
			t.Errorf("%U is shown as %q", r, got)
		}
	}
}

func TestLinesStayLines(t *testing.T) {
	if got, want := tasks.VisibleLines("a\u202e\n\n\tb\r\n"), "a[U+202E]\n\n b \n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

func FuzzVisible(f *testing.F) {
	f.Add("a\u202eb\n\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := tasks.Visible(s)
		if !utf8.ValidString(got) || strings.ContainsAny(got, "\n\r\x1b\u202e\u2066\u200b") || tasks.Visible(got) != got {
			t.Errorf("%q is shown as %q", s, got)
		}
	})
}
