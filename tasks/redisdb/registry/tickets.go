package registry

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"

	"batchreset/tasks"
)

// ticketKey is a string: the key that tickets are sealed with. Every process has to know it,
// and who deletes it ends every ticket.
const ticketKey = "reset:ticket-key"

// NewTicket returns a ticket for the events of a job or run. It is nowhere but with its holder: the
// handle of the token and the end of the ticket's time, sealed together with their ID.
func (t *Tokens) NewTicket(ctx context.Context, token tasks.Token, id string) (tasks.Ticket, error) {
	seal, err := t.ticketSeal(ctx)
	if errors.Is(err, redis.Nil) { // nobody has had a ticket yet
		if err := t.redis.SetNX(ctx, ticketKey, rand.Text()+rand.Text(), 0).Err(); err != nil {
			return tasks.Ticket{}, OrFull(fmt.Errorf("make the key of tickets: %w", err))
		}
		seal, err = t.ticketSeal(ctx)
	}
	if err != nil {
		return tasks.Ticket{}, err
	}
	until := tasks.FromMillis(t.redis.Now().Add(tasks.TicketLife).UnixMilli())
	if token.Hash == "" {
		return tasks.Ticket{}, tasks.Errorf(tasks.Forbidden, "a ticket is made with a token or access key of this service, not with that of another one")
	}
	if end := token.ExpiresAt; !end.IsZero() && end.Before(until.Time) {
		until = end // it would open nothing any more
	}
	text := append(binary.BigEndian.AppendUint64(nil, uint64(until.UnixMilli())), token.Hash...) //nolint:gosec // after 1970
	return tasks.Ticket{Ticket: base64.RawURLEncoding.EncodeToString(seal.Seal(nil, nil, text, []byte(id))), ExpiresAt: until}, nil
}

// TicketToken returns the token of whoever got a ticket for the events of a job or run. Errors:
// tasks.BadToken, tasks.TokenExpired.
func (t *Tokens) TicketToken(ctx context.Context, ticket, id string) (tasks.Token, error) {
	seal, err := t.ticketSeal(ctx)
	if err != nil && !errors.Is(err, redis.Nil) {
		return tasks.Token{}, err
	}
	hash, until, valid := openTicket(seal, ticket, id)
	switch {
	case !valid:
		return tasks.Token{}, tasks.Errorf(tasks.BadToken, "the ticket is not valid, or is for another job or run")
	case !t.redis.Now().Before(until):
		return tasks.Token{}, tasks.Errorf(tasks.TokenExpired, "the ticket has expired, get a new one")
	}
	token, found, err := t.token(ctx, hash)
	if err != nil {
		return tasks.Token{}, err
	}
	if !found {
		return tasks.Token{}, tasks.Errorf(tasks.TokenExpired, "the token of the ticket is no longer valid")
	}
	return token, token.Check(t.redis.Now())
}

// openTicket returns what NewTicket has sealed. seal is nil as long as it has done nothing.
func openTicket(seal cipher.AEAD, ticket, id string) (hash string, until time.Time, valid bool) {
	sealed, err := base64.RawURLEncoding.DecodeString(ticket)
	if err != nil || seal == nil {
		return "", time.Time{}, false
	}
	text, err := seal.Open(nil, nil, sealed, []byte(id))
	if err != nil || len(text) < 8 {
		return "", time.Time{}, false
	}
	return string(text[8:]), time.UnixMilli(int64(binary.BigEndian.Uint64(text))), true //nolint:gosec // see NewTicket
}

// ticketSeal seals and opens tickets.
func (t *Tokens) ticketSeal(ctx context.Context) (cipher.AEAD, error) {
	key, err := t.redis.Get(ctx, ticketKey).Result()
	if err != nil {
		return nil, fmt.Errorf("read the key of tickets: %w", err)
	}
	sum := sha256.Sum256([]byte(key))
	block, err := aes.NewCipher(sum[:])
	if err != nil {
		return nil, err
	}
	return cipher.NewGCMWithRandomNonce(block)
}
