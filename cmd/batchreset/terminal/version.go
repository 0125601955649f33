package terminal

import "runtime/debug"

// version is set by the linker for released binaries.
var version = ""

// Version is the version of this binary: that of the release, or else what the Go
// toolchain knows of the module, or "devel".
func Version() string {
	if version != "" {
		return version
	}
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" || info.Main.Version == "(devel)" {
		return "devel"
	}
	return info.Main.Version
}

// UserAgent is what requests of this binary say of who sends them.
func UserAgent() string { return "batchreset/" + Version() }
