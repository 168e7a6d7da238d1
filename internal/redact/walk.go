package redact

// maxErrors bounds a walk over the errors that an error wraps. It may wrap itself,
// or itself twice, and errors.Is would then go on for ever.
const maxErrors = 1000

// Is is [errors.Is] for an err that is foreign code: it looks at no more than
// maxErrors errors, and a method that panics has found nothing.
func Is(err, target error) bool {
	return find(err, func(err error) bool {
		if same(err, target) {
			return true
		}
		is, ok := err.(interface{ Is(target error) bool })
		return ok && is.Is(target)
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

// find reports whether err matches, or an error that it wraps, in the order of
// [errors.Is].
func find(err error, match func(error) bool) (found bool) {
	pending := []error{err}
	for n := 0; n < maxErrors && len(pending) > 0 && !found; n++ {
		err, pending = pending[len(pending)-1], pending[:len(pending)-1]
		if err == nil {
			continue
		}
		guard(func() { found = match(err) })
		guard(func() {
			switch w := err.(type) {
			case interface{ Unwrap() error }:
				pending = append(pending, w.Unwrap())
			case interface{ Unwrap() []error }:
				parts := w.Unwrap()
				for i := min(len(parts), maxErrors) - 1; i >= 0; i-- {
					pending = append(pending, parts[i])
				}
			}
		})
	}
	return found
}

// guard calls f, which runs foreign code, and survives its panic.
func guard(f func()) {
	defer func() { _ = recover() }()
	f()
}

// same is ==, for an err that cannot be compared too.
func same(err, constant error) (equal bool) {
	guard(func() { equal = err == constant }) //nolint:errorlint // what it wraps is looked at by itself
	return equal
}
