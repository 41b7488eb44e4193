// Package envelope holds the document of the envelope's format against the
// codec.
package envelope
