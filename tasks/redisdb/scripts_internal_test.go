package redisdb

import (
	"errors"
	"testing"
)

func TestAnErrorSaysSomethingWithoutACause(t *testing.T) {
	if err := orOddAnswer(nil, []any{int64(1)}); err.Error() != "the script answered [1]" {
		t.Error(err)
	}
	if cause := errors.New("away"); orOddAnswer(cause, nil) != cause { //nolint:errorlint // the very one
		t.Error("the cause is lost")
	}
}
