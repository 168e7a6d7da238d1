package redact

import (
	"context"
	"os"
	"slices"
)

// maxErrors limits a walk over the errors that an error wraps. An error may wrap itself, or itself
// twice, and errors.Is would then go on for ever.
const maxErrors = 1000

// Is is [errors.Is] for an err that is foreign code: it looks at no more than maxErrors errors,
// and a method that panics counts as no match.
func Is(err, target error) bool {
	return find(err, func(err error) bool {
		if is, ok := err.(interface{ Is(target error) bool }); ok && is.Is(target) {
			return true
		}
		// This comes last, because it panics if err and target have the same type and cannot be compared.
		return err == target //nolint:errorlint // find looks at what err wraps
	})
}

// As is [errors.As] with the same bounds.
func As[E error](err error) (found E, ok bool) {
	ok = find(err, func(err error) (match bool) {
		if found, match = err.(E); match {
			return true
		}
		as, ok := err.(interface{ As(target any) bool })
		return ok && as.As(&found)
	})
	return found, ok
}

// TimedOut reports whether err, or an error that it wraps, says that it is a timeout.
func TimedOut(err error) bool {
	return Is(err, context.DeadlineExceeded) || Is(err, os.ErrDeadlineExceeded) || find(err, func(err error) bool {
		t, ok := err.(interface{ Timeout() bool })
		return ok && t.Timeout()
	})
}

// find reports whether err matches, or an error that it wraps, in the order of [errors.Is]. Each
// call of foreign code has its own recover: after a panic, find still looks at the other errors.
//
// One limit for all errors was chosen. A limit for the depth was rejected: an error that joins
// itself twice has as many errors as two to the power of the depth. The limit for all errors also
// limits the depth of the stack. To call errors.Is with a time limit was rejected, since nothing
// can end a goroutine that does not return.
func find(err error, match func(error) bool) bool {
	left := maxErrors
	var in func(err error) bool
	in = func(err error) bool {
		if left--; left < 0 {
			return false
		}
		if guarded(func() bool { return match(err) }) {
			return true
		}
		return guarded(func() bool {
			switch w := err.(type) {
			case interface{ Unwrap() error }:
				return in(w.Unwrap())
			case interface{ Unwrap() []error }:
				parts := w.Unwrap()
				return slices.ContainsFunc(parts[:min(len(parts), left)], in)
			}
			return false
		})
	}
	return in(err)
}

// guarded returns what f returns, or false if f panics.
func guarded(f func() bool) (found bool) {
	defer func() { _ = recover() }()
	return f()
}
