package tasks

import "fmt"

// DidYouMean is the end of a sentence about a name that is not known: the nearest of those
// that are, or nothing if none is near.
func DidYouMean[T ~string](name string, known []T) string {
	best, least := "", len(name)
	for _, k := range known {
		if d := distance(fold(name), fold(string(k))); d < least {
			best, least = string(k), d
		}
	}
	// Two typing mistakes; in a short name, one.
	if best == "" || least > min(2, (len(best)+1)/3) {
		return ""
	}
	return fmt.Sprintf("; did you mean %q?", best)
}

// fold drops what people spell in different ways: case, dashes and underscores.
func fold(name string) string {
	folded := make([]byte, 0, len(name))
	for _, c := range []byte(name) {
		switch {
		case 'A' <= c && c <= 'Z':
			folded = append(folded, c+'a'-'A')
		case c != '_' && c != '-' && c != ' ' && c != '.':
			folded = append(folded, c)
		}
	}
	return string(folded)
}

// distance is how many letters have to be put in, left out or changed to make one word of
// the other.
func distance(a, b string) int {
	if len(a) > 64 {
		return len(a) // too different for a typing mistake
	}
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			changed := diagonal
			if a[i] != b[j] {
				changed++
			}
			diagonal = row[j+1]
			row[j+1] = min(changed, row[j]+1, diagonal+1)
		}
	}
	return row[len(b)]
}
