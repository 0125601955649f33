package execdriver

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"batchreset/worker"
	"batchreset/worker/drivertest"
)

// shelf is a program with one phone. What it is about is in a folder:
//
//	does    its behaviour
//	cut     the step at which it is killed, with its worker
//	steps   how many there were
//	KEY     a folder for each reset
type shelf struct {
	t      *testing.T
	dir    string
	cfg    Config
	script string
}

func (s *shelf) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o644); err != nil {
		s.t.Error(err)
	}
}

func (s *shelf) Behave(b drivertest.Behaviour) { s.write("does", string(b)) }
func (s *shelf) CutAt(step int)                { s.write("cut", strconv.Itoa(step)) }

func (s *shelf) Attempt() worker.Attempt {
	a := attempt()
	return worker.Attempt{InstanceID: a.InstanceID, Address: a.Address, Labels: a.Labels}
}

func (s *shelf) Steps() int {
	return strings.Count(read(s.t, filepath.Join(s.dir, "steps")), "\n")
}

func (s *shelf) Resets() int {
	wipes, err := filepath.Glob(filepath.Join(s.dir, "wipes", "*"))
	if err != nil {
		s.t.Error(err)
	}
	return len(wipes)
}

func (s *shelf) Driver(t *testing.T) worker.Driver {
	t.Helper()
	cfg := s.cfg
	cfg.Command = []string{"env", "DIR=" + s.dir, "sh", "-c", s.script}
	d, _ := open(t, cfg, "")
	return d
}

// basics are what the programs have in common.
const basics = `
	cd "$DIR"
	step() {
		echo >>steps
		[ $(wc -l <steps) != "$(cat cut)" ] || kill -9 $$
	}
	wiped() { [ "$(ls wipes)" ]; }
	field() { printf '%s' "$request" | sed "s/.*\"$1\":\"\([^\"]*\)\".*/\1/"; }
	lost() { kill -9 $$; }
	noise() { printf '<html>\000\033[2J\377 Bad\r\n\tGateway\n'; exit; }
	read -r request
	does=$(cat does)
	if [ "$(field mode)" = look ]; then
		[ "$does" != 'cannot be reached' ] || say unreachable
		if wiped; then echo '{"initial":true,"evidence":"wiped"}'; else echo '{"initial":false,"evidence":"not wiped"}'; fi
		exit
	fi
	step
	case $does in
	'says that the phone is busy') say busy ;;
	refuses) say permanent ;;
	'says that it has failed') say retry ;;
	'cannot be reached') say unreachable ;;
	'does nothing, and answers in garbage') noise ;;
	'does nothing, and does not answer') lost ;;
	'does nothing, and says that it is done') say done ;;
	esac
	key=$(field driver_key)`

// protocol is how a program says its result, and plain how a script does.
const (
	protocol = `say() { echo "{\"result\":\"$1\"}"; exit; }`
	plain    = `say() {
		case $1 in done) exit 0 ;; retry) exit 75 ;; permanent) exit 1 ;; unreachable) exit 69 ;; esac
	}`
)

// after is what the programs do when they have wiped the phone.
const after = `
	step
	case $does in
	'does it, and answers in garbage') noise ;;
	'does it, and the answer is lost') lost ;;
	'does it, and does not answer') exec sleep 600 ;;
	'is slow') sleep 0.3 ;;
	esac`

func TestContract(t *testing.T) {
	t.Parallel()
	const alone = "a plain script has no words for it"
	for name, row := range map[string]struct {
		cfg    Config
		script string
		never  map[drivertest.Behaviour]string
	}{
		"a program that goes on from its checkpoint, and looks": {Config{Look: true}, protocol + basics + `
			if [ "$(field checkpoint)" = "" ]; then
				echo '{"checkpoint":"before the wipe"}'
				step
				mkdir "wipes/$key"` + after + `
			fi
			for wait in 1 2 3 4 5 6 7 8 9; do wiped || sleep 0.2; done
			wiped || say retry
			step
			say done`, nil},
		"a program that may be repeated, because its upstream does each key once": {Config{Repeatable: true}, protocol + basics + `
			mkdir "wipes/$key" 2>/dev/null` + after + `
			say done`, nil},
		"a plain script": {Config{ExitStatus: true}, plain + basics + `
			mkdir "wipes/$key"` + after + `
			step
			say done`, map[drivertest.Behaviour]string{drivertest.Busy: alone, drivertest.Garbage: alone, drivertest.Nonsense: alone}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			drivertest.Run(t, drivertest.Subject{Never: row.never, New: func(t *testing.T) drivertest.Upstream {
				s := &shelf{t: t, dir: t.TempDir(), cfg: row.cfg, script: row.script}
				if err := os.Mkdir(filepath.Join(s.dir, "wipes"), 0o755); err != nil {
					t.Fatal(err)
				}
				s.Behave(drivertest.Works)
				s.CutAt(0)
				return s
			}})
		})
	}
}
