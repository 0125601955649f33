package terminal

import (
	"io"

	"batchreset/tasks"
)

// VisibleWriter writes whole lines with text of others in them.
type VisibleWriter struct{ io.Writer }

// Write implements io.Writer.
func (w VisibleWriter) Write(lines []byte) (int, error) {
	_, err := io.WriteString(w.Writer, tasks.VisibleLines(string(lines)))
	return len(lines), err
}
