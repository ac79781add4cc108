"""Whole Linux hosts on this machine, without KVM, and the server that they work for.

A host is a virtual machine of QEMU with an emulated IOMMU, a network card that has virtual functions and two NUMA
cells; its programs are Debian's. It is spoken to through its guest agent, and its own agent of Skyledger
reaches the server through QEMU's user network.
"""

import base64
import json
import os
import shlex
import shutil
import socket
import subprocess
import tarfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
# On a machine that has other things to do a host takes minutes to start.
PATIENCE = int(os.environ.get("FULL_HOSTS_PATIENCE", "900"))


class Failed(Exception):
    """A check did not come out as it should."""


class NotTried(Exception):
    """A check needs what is not there."""


def until(what, ask, patience=PATIENCE, pause=1.0):
    """The first answer that is something; faults of asking count as none."""
    ends, last = time.monotonic() + patience, None
    while time.monotonic() < ends:
        try:
            answer = ask()
            if answer:
                return answer
        except (OSError, ValueError, KeyError, Failed) as fault:
            last = fault
        time.sleep(pause)
    raise Failed(f"{what}: not within {patience} s" + (f" ({last})" if last else ""))


class Host:
    """One host, with its number; each wire is one end of a socket, `listen` or `connect`, and a port."""

    def __init__(self, cache, scratch, program, number, san=None, wires=()):
        self.number, self.name = number, f"full-{number}"
        self.scratch = os.path.join(scratch, self.name)
        self.socket = os.path.join(scratch, f"ga{number}")
        self.cache, self.san, self.wires = cache, san, wires
        os.makedirs(self.scratch)
        self.process = self.line = None
        self._pack(program)

    def _pack(self, program):
        settings = {
            "HOST_NAME": self.name,
            "HOST_NUMBER": self.number,
            "HOST_MAC": f"52:54:00:99:00:0{self.number}",
            "WIRE_MAC": f"52:54:00:99:01:0{self.number}",
            "WIRE_ADDRESS": f"10.99.0.{self.number}/24" if self.wires else "",
            "SAN": "yes" if self.san else "",
        }
        env = os.path.join(self.scratch, "host.env")
        with open(env, "w", encoding="utf-8") as file:
            file.writelines(f"{name}='{value}'\n" for name, value in settings.items())
        self.kit = os.path.join(self.scratch, "kit.tar")
        with tarfile.open(self.kit, "w") as kit:
            kit.add(os.path.join(HERE, "init"), "init")
            kit.add(env, "host.env")
            kit.add(program, "skyledger")
            kit.add(os.path.join(self.cache, "guest"), "guest")

    def start(self):
        """Starts it; does not wait."""
        disk = os.path.join(self.scratch, "root.qcow2")
        if not os.path.exists(disk):
            root = os.path.join(self.cache, "root.raw")
            make = ["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", root, disk]
            subprocess.run(make, check=True)
        nvme = os.path.join(self.scratch, "nvme.raw")
        if not os.path.exists(nvme):
            with open(nvme, "wb") as file:
                file.truncate(64 << 20)
        half = 720
        words = [
            "qemu-system-x86_64", "-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max",
            "-machine", "q35,kernel-irqchip=off", "-smp", "2", "-m", str(2 * half),
            "-object", f"memory-backend-ram,id=m0,size={half}M",
            "-object", f"memory-backend-ram,id=m1,size={half}M",
            "-numa", "node,nodeid=0,cpus=0,memdev=m0", "-numa", "node,nodeid=1,cpus=1,memdev=m1",
            "-display", "none", "-nodefaults", "-no-reboot",
            "-device", "intel-iommu,intremap=on,caching-mode=on",
            "-kernel", os.path.join(self.cache, "kernel"),
            "-initrd", os.path.join(self.cache, "initramfs"),
            "-append", "console=ttyS0 quiet panic=-1 mitigations=off intel_iommu=on iommu=pt hugepages=192 "
            "net.ifnames=0 no_timer_check tsc=reliable nokaslr random.trust_cpu=on",
            "-serial", "file:" + os.path.join(self.scratch, "console"),
            "-drive", f"file={disk},format=qcow2,if=none,id=root,cache=unsafe",
            "-device", "virtio-blk-pci,drive=root",
            "-drive", f"file={self.kit},format=raw,if=none,id=kit,readonly=on",
            "-device", "virtio-blk-pci,drive=kit",
            "-netdev", "user,id=n0,ipv6=off",
            "-device", f"virtio-net-pci,netdev=n0,mac=52:54:00:99:00:0{self.number}",
            "-device", "pcie-root-port,id=rp1,chassis=1",
            "-netdev", "user,id=n1,restrict=on,ipv6=off",
            "-device", f"igb,bus=rp1,netdev=n1,mac=52:54:00:99:02:0{self.number}",
            # Two functions of one card, which are one IOMMU group.
            "-device", "pcie-root-port,id=rp2,chassis=2",
            "-device", "e1000e,bus=rp2,addr=0.0,multifunction=on", "-device", "e1000e,bus=rp2,addr=0.1",
            "-device", "pcie-root-port,id=rp3,chassis=3",
            "-blockdev", f"driver=file,filename={nvme},node-name=nvme,locking=off",
            "-device", "nvme,bus=rp3,drive=nvme,serial=NVME1",
            "-device", "qemu-xhci", "-device", "usb-mouse",
            "-device", "virtio-serial-pci",
            "-chardev", f"socket,path={self.socket},server=on,wait=off,id=ga",
            "-device", "virtserialport,chardev=ga,name=org.qemu.guest_agent.0",
        ]
        if self.san:
            words += [
                "-blockdev", f"driver=file,filename={self.san},node-name=lun,locking=off",
                "-blockdev", "driver=raw,file=lun,node-name=san",
                "-device", "virtio-blk-pci,drive=san,share-rw=on,serial=SANLUN1",
            ]
        for at, (how, port) in enumerate(self.wires):
            words += [
                "-netdev", f"socket,id=w{at},{how}=127.0.0.1:{port}",
                "-device", f"virtio-net-pci,netdev=w{at},mac=52:54:00:99:0{1 + 2 * at}:0{self.number}",
            ]
        with open(os.path.join(self.scratch, "qemu.log"), "ab") as log:
            self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def kill(self):
        """As a power cut."""
        self._hang_up()
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def _ensure_runs(self):
        """Nobody waits for a machine that has ended: it says why."""
        if self.process.poll() is None:
            return
        said = []
        for name in ("qemu.log", "console"):
            with open(os.path.join(self.scratch, name), encoding="utf-8", errors="replace") as file:
                said.append(f"{name}: {file.read()[-800:]}")
        raise RuntimeError(f"{self.name} has ended with {self.process.returncode}; " + "; ".join(said))

    def _connect(self):
        """The line to its guest agent. It stays, for that takes seconds to notice a new one."""
        self._ensure_runs()
        if self.line:
            return
        line = socket.socket(socket.AF_UNIX)
        line.settimeout(60)
        line.connect(self.socket)
        stream = line.makefile("rwb")
        self.line = (line, stream)
        number = int.from_bytes(os.urandom(3), "big")
        sync = {"execute": "guest-sync-delimited", "arguments": {"id": number}}
        stream.write(b"\xff" + json.dumps(sync).encode() + b"\n")
        stream.flush()
        while True:
            answer = stream.readline()
            if not answer:
                raise OSError("the guest agent says nothing")
            try:
                if json.loads(answer.split(b"\xff")[-1]).get("return") == number:
                    break
            except ValueError:
                continue

    def _hang_up(self):
        """QEMU serves one line at a time."""
        if self.line:
            # Where it is broken there is nothing to send any more.
            for end in reversed(self.line):
                try:
                    end.close()
                except OSError:
                    pass
        self.line = None

    def _ask(self, asked):
        """One command of its guest agent."""
        try:
            self._connect()
            _, stream = self.line
            stream.write(json.dumps(asked).encode() + b"\n")
            stream.flush()
            answer = json.loads(stream.readline())
        except (OSError, ValueError):
            self._hang_up()
            raise
        if "error" in answer:
            raise OSError(answer["error"].get("desc"))
        return answer["return"]

    def up(self):
        """Waits until it is there."""
        def ask():
            self._ensure_runs()
            with open(os.path.join(self.scratch, "console"), encoding="utf-8", errors="replace") as console:
                # What its agent is asked before that is lost.
                if "HOST IS UP" not in console.read():
                    return None
            self._ask({"execute": "guest-ping"})
            return True
        until(f"{self.name} is up", ask)

    def run(self, script, patience=300, check=True):
        """What a shell script inside says; its exit status as well where it is not checked."""
        words = {"path": "/bin/bash", "arg": ["-c", script], "capture-output": True}
        asked = self._ask({"execute": "guest-exec", "arguments": words})
        ends = time.monotonic() + patience
        while True:
            status = {"execute": "guest-exec-status", "arguments": {"pid": asked["pid"]}}
            done = self._ask(status)
            if done["exited"]:
                break
            if time.monotonic() > ends:
                raise Failed(f"{self.name}: `{script}` takes longer than {patience} s")
            time.sleep(0.3)
        text = [base64.b64decode(done.get(of, "")).decode(errors="replace") for of in ("out-data", "err-data")]
        code = done.get("exitcode", -1)
        if not check:
            return code, text[0] + text[1]
        if code != 0:
            raise Failed(f"{self.name}: `{script}` ended with {code}: {(text[0] + text[1]).strip()[-600:]}")
        return text[0].strip()

    def begin_agent(self, server, *more):
        """Its agent of Skyledger begins to work; what it says goes to a file."""
        token = server.json("token", "create", f"{self.name}-{time.monotonic_ns()}", "--host", self.name)
        words = " ".join(more)
        self.run(
            f"umask 077; echo '{token['secret']}' >/etc/skyledger/token; umask 022; "
            "mkdir -p /var/lib/skyledger-agent/uploads; "
            f"setsid skyledger agent --server http://10.0.2.2:{server.port} --token-file /etc/skyledger/token "
            f"--data /var/lib/skyledger-agent {words} </dev/null >>/var/log/skyledger-agent 2>&1 & "
            "echo $! >/run/agent.pid"
        )

    def bring_guest(self):
        """The image of the tiny guest, brought by hand; its digest and its size in MiB."""
        said = self.run(
            "cd /var/lib/skyledger-agent/uploads && sum=$(sha256sum /run/kit/guest | cut -d' ' -f1) && "
            "cp /run/kit/guest $sum && stat -c \"$sum %s\" $sum"
        )
        digest, size = said.split()
        return digest, -(-int(size) // (1 << 20))

    def in_guest(self, domain, script, patience=600):
        """What a shell script says in a server of this host, through the server's guest agent."""
        def ask(command):
            said = shlex.quote(json.dumps(command))
            return json.loads(self.run(f"virsh -q qemu-agent-command {domain} {said} --timeout 60"))
        words = {"path": "/bin/sh", "arg": ["-c", script], "capture-output": True}
        pid = until(
            f"the guest agent of {domain}",
            lambda: ask({"execute": "guest-exec", "arguments": words})["return"]["pid"],
            patience, 5.0,
        )
        status = {"execute": "guest-exec-status", "arguments": {"pid": pid}}
        def ended():
            said = ask(status)["return"]
            return said if said["exited"] else None
        done = until(f"`{script}` in {domain}", ended, 120)
        return base64.b64decode(done.get("out-data", "")).decode(errors="replace").strip()


class Server:
    """`skyledger serve` on the loopback, driven by its command line."""

    def __init__(self, program, scratch):
        self.program, self.scratch = program, scratch
        self.token_file = os.path.join(scratch, "token")
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.log = open(os.path.join(scratch, "server.log"), "ab")
        words = [
            program, "serve", "--data", os.path.join(scratch, "data"), "--sync-interval", "0",
            "--listen", f"127.0.0.1:{self.port}", "--token-file", self.token_file,
        ]
        self.process = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        until("the server answers", lambda: self.json("get", "hosts") is not None, 60)

    def stop(self):
        """Ends it."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()

    def run(self, *words, body=None):
        """A command as a user gives it: its exit code, what it says, what it complains of."""
        with open(self.token_file, encoding="utf-8") as file:
            token = file.read().strip()
        environment = {
            **os.environ, "SKYLEDGER_SERVER": f"http://127.0.0.1:{self.port}", "SKYLEDGER_TOKEN": token,
        }
        words = [self.program, *words]
        if body is not None:
            words += ["-f", "-"]
        done = subprocess.run(
            words, env=environment, text=True, capture_output=True, timeout=180, check=False,
            input=json.dumps(body) if body is not None else "",
        )
        return done.returncode, done.stdout, done.stderr

    def json(self, *words, body=None):
        """What it answers in JSON."""
        code, out, err = self.run(*words, "-o", "json", body=body)
        if code != 0:
            raise Failed(f"skyledger {' '.join(words)} ended with {code}: {(out + err).strip()[-800:]}")
        return json.loads(out)

    def awaited(self, kind, name, status, patience=PATIENCE):
        """Waits until something has a status and nothing is ordered of it; parked is a failure at once."""
        ends = time.monotonic() + patience
        while True:
            row = self.json("get", kind, name, "--show-gone")
            row = row[0] if isinstance(row, list) else row
            order = row.get("order")
            if row["status"] == status and not order:
                return row
            if order and order.get("parked"):
                raise Failed(f"{name} is parked: {json.dumps(order)[-800:]}")
            if time.monotonic() > ends:
                raise Failed(f"{name} is {row['status']} and not {status}: {json.dumps(order)[-600:]}")
            time.sleep(1)


class Checks:
    """What is looked at, one line each."""

    def __init__(self):
        self.lines, self.began = [], time.monotonic()

    def that(self, name, look):
        """Runs a check; says how it came out, and gives what it gave."""
        began, given = time.monotonic(), None
        try:
            given = look()
            line = f"PASS       {name}"
        except NotTried as why:
            line = f"NOT TRIED  {name}: {why}"
        except Exception as fault:  # pylint: disable=broad-except
            line = f"FAIL       {name}: {fault}"
        line += f"  ({time.monotonic() - began:.0f} s)"
        self.lines.append(line)
        print(line, flush=True)
        return given

    def failed(self):
        """How many failed."""
        return sum(line.startswith("FAIL") for line in self.lines)

    def end(self):
        """The sum of it; how many failed."""
        failed = self.failed()
        passed = sum(line.startswith("PASS") for line in self.lines)
        left = len(self.lines) - failed - passed
        print(f"{passed} passed, {failed} failed, {left} not tried; {time.monotonic() - self.began:.0f} s", flush=True)
        return failed


def scratch_folder():
    """A folder of this run alone; sockets have short paths."""
    import tempfile
    return tempfile.mkdtemp(prefix="skyledger-full.")


def clear(folder):
    """Nothing is left of a run."""
    shutil.rmtree(folder, ignore_errors=True)
