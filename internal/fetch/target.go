package fetch

// Target returns what stands in the request line of an exchange with this URL, for who signs it (RFC 7616, section 3.4.6).
// The error is an *Error.
func Target(text string) (string, error) {
	u, err := parseTarget(text)
	if err != nil {
		return "", err
	}
	return u.RequestURI(), nil
}
