package terminal

import (
	"fmt"
	"io"

	"batchreset/tasks"
)

// writeSpace shows what fills a server of Redis.
func writeSpace(w io.Writer, s tasks.Space) error {
	fmt.Fprintf(w, "What fills Redis %s: %s of memory, %d keys.%s\n", s.Address, Bytes(s.Memory), s.Keys, estimate(s))
	table := NewTable(w)
	table.Row("  FAMILY", "KEYS", "MEMORY")
	for _, f := range s.Families {
		table.Row("  "+f.Name, fmt.Sprint(f.Keys), Bytes(f.Bytes))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	table = NewTable(w)
	table.Row("  LARGEST KEYS", "MEMORY")
	for _, k := range s.Largest {
		table.Row("  "+tasks.Visible(k.Key), Bytes(k.Bytes))
	}
	return table.Flush()
}

// estimate says how much of it was looked at.
func estimate(s tasks.Space) string {
	if s.Looked >= s.Keys {
		return ""
	}
	return fmt.Sprintf(" %d of them were looked at: what follows is an estimate.", s.Looked)
}

// Bytes is a size for people.
func Bytes(n int64) string {
	switch {
	case n < 1<<10:
		return fmt.Sprintf("%d B", n)
	case n < 1<<20:
		return fmt.Sprintf("%.1f KiB", float64(n)/(1<<10))
	case n < 1<<30:
		return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20))
	}
	return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
}
