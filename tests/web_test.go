// SPDX-License-Identifier: Apache-2.0

package tests

import (
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"bailiff.dev/bailiff/internal/kerneltest"
)

// web is a local HTTP server and an HTTPS server, outside of every session.
type web struct{ plain, secure *httptest.Server }

// newWeb starts them; the certificate's authority is dir/ca.pem.
func newWeb(t *testing.T, dir string) *web {
	t.Helper()
	pages := http.NewServeMux()
	pages.HandleFunc("/hello", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })
	pages.HandleFunc("/echo", func(w http.ResponseWriter, r *http.Request) { io.Copy(w, r.Body) })
	secure := httptest.NewUnstartedServer(pages)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{certificate(t, dir)}}
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // a test refuses the certificate
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := httptest.NewServer(pages)
	t.Cleanup(plain.Close)
	return &web{plain, secure}
}

// expand replaces %HTTPPORT%, %HTTPSPORT%, and as URLs %HTTP% and %HTTPS%.
func (w *web) expand(text string) string {
	return strings.NewReplacer("%HTTPSPORT%", port(w.secure), "%HTTPPORT%", port(w.plain),
		"%HTTPS%", w.secure.URL, "%HTTP%", w.plain.URL).Replace(text)
}

func port(s *httptest.Server) string {
	return strconv.Itoa(s.Listener.Addr().(*net.TCPAddr).Port)
}

// certificate makes an authority, dir/ca.pem, and a certificate of it for 127.0.0.1.
func certificate(t *testing.T, dir string) tls.Certificate {
	t.Helper()
	kerneltest.RequireTool(t, "openssl")
	script := `set -e; cd "$0"; key="-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
openssl req -x509 $key -keyout ca.key -out ca.pem -days 2 -subj '/CN=test authority'
openssl req $key -keyout server.key -out server.csr -subj /CN=127.0.0.1
printf 'subjectAltName=IP:127.0.0.1' > san
openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile san`
	if out, err := exec.Command("/bin/bash", "-c", script, dir).CombinedOutput(); err != nil {
		t.Fatalf("make a certificate: %v: %s", err, out)
	}
	c, err := tls.LoadX509KeyPair(filepath.Join(dir, "server.pem"), filepath.Join(dir, "server.key"))
	must(t, err)
	return c
}

// serve serves one page, /hello, and returns the address.
func serve(t *testing.T, network, address string) string {
	t.Helper()
	l, err := net.Listen(network, address)
	must(t, err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "hello") })}
	go s.Serve(l)
	t.Cleanup(func() { s.Close() })
	return l.Addr().String()
}
