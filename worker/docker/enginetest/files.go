package enginetest

import (
	"archive/tar"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// Root is the archive of an image's files, with one program under several names.
func Root(program []byte) ([]byte, error) {
	var archive bytes.Buffer
	w := tar.NewWriter(&archive)
	entries := []*tar.Header{
		{Name: "init", Mode: 0o755, Typeflag: tar.TypeReg, Size: int64(len(program))},
		{Name: "data/", Mode: 0o755, Typeflag: tar.TypeDir},
		{Name: "system/bin/", Mode: 0o755, Typeflag: tar.TypeDir},
	}
	for _, name := range []string{"getprop", "find", "healthy", "boot"} {
		entries = append(entries, &tar.Header{Name: "system/bin/" + name, Typeflag: tar.TypeSymlink, Linkname: "/init"})
	}
	for _, entry := range entries {
		if err := w.WriteHeader(entry); err != nil {
			return nil, err
		}
		if entry.Size > 0 {
			if _, err := w.Write(program); err != nil {
				return nil, err
			}
		}
	}
	return archive.Bytes(), w.Close()
}

// WriteCertificates writes those of an authority, a server and a client, and of a stranger that
// nobody vouches for.
func WriteCertificates(dir string) error {
	authority, key, err := writeCertificate(dir, "ca", nil, nil)
	if err != nil {
		return err
	}
	for _, name := range []string{"server", "client"} {
		if _, _, err := writeCertificate(dir, name, authority, key); err != nil {
			return err
		}
	}
	_, _, err = writeCertificate(dir, "stranger", nil, nil)
	return err
}

func writeCertificate(dir, name string, parent *x509.Certificate, signer *ecdsa.PrivateKey) (*x509.Certificate, *ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: parent == nil, BasicConstraintsValid: true,
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	if parent == nil {
		parent, signer = template, key
	}
	certificate, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, signer)
	if err != nil {
		return nil, nil, err
	}
	secret, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, err
	}
	if err := writePEM(filepath.Join(dir, name+".pem"), "CERTIFICATE", certificate); err != nil {
		return nil, nil, err
	}
	return template, key, writePEM(filepath.Join(dir, name+"-key.pem"), "PRIVATE KEY", secret)
}

func writePEM(name, kind string, content []byte) error {
	return os.WriteFile(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: content}), 0o600)
}
