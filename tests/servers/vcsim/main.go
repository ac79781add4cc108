// A vCenter for tests: the simulator of govmomi (Debian: golang-github-vmware-govmomi-dev) behind a front of ours.
//
// The simulator does sessions, inventory, the property collector, power, snapshots, tasks, and files of
// datastores. What it lacks is added by the front, and is ours, so it says nothing of how a real vCenter does it:
// disks that are written while a machine runs, with a delta while it has a snapshot; which parts of a disk have
// changed (QueryChangedDiskAreas); a key of extraConfig that is set again; and files that answer only to a session.
//
// Beside that, under /lab, a test makes machines, writes their disks as their systems would, and breaks calls.
package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/json"
	"encoding/xml"
	"flag"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/vmware/govmomi"
	"github.com/vmware/govmomi/find"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// What is known to have changed, in bytes.
const block = 64 << 10

// Most stretches of one answer: so that a client has to ask on.
const areasMax = 4

type disk struct {
	path     string
	file     string // as the datastore calls it
	size     int64
	delta    map[int64][]byte // of a block, while there is a snapshot
	changed  map[int64]int64  // the number of the write that a block was last written by
	tracking bool
}

type machine struct {
	id        string
	disks     map[int32]*disk
	snapshots map[string]int64 // the number of the last write before it
	writes    int64
}

type breakage struct{ Call, How string }

type front struct {
	sync.Mutex
	inner    http.Handler
	client   *govmomi.Client
	machines map[string]*machine
	broken   []breakage
	calls    []string
	nobody   bool // its system does not hear that it is to stop
}

func (d *disk) read() ([]byte, error) {
	all, err := os.ReadFile(d.path)
	for at, bytes := range d.delta {
		copy(all[at*block:], bytes)
	}
	return all, err
}

// As the system of a machine writes.
func (m *machine) write(d *disk, at int64, data []byte) error {
	m.writes++
	for len(data) > 0 {
		number, within := at/block, at%block
		length := min64(block-within, int64(len(data)))
		if d.tracking {
			d.changed[number] = m.writes
		}
		if len(m.snapshots) > 0 {
			whole, there := d.delta[number]
			if !there {
				whole = make([]byte, min64(block, d.size-number*block))
				file, err := os.Open(d.path)
				if err != nil {
					return err
				}
				_, err = file.ReadAt(whole, number*block)
				file.Close()
				if err != nil {
					return err
				}
			}
			copy(whole[within:], data[:length])
			d.delta[number] = whole
		} else if err := d.put(at, data[:length]); err != nil {
			return err
		}
		at, data = at+length, data[length:]
	}
	return nil
}

func (d *disk) put(at int64, data []byte) error {
	file, err := os.OpenFile(d.path, os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer file.Close()
	_, err = file.WriteAt(data, at)
	return err
}

func min64(one, other int64) int64 {
	if one < other {
		return one
	}
	return other
}

func flat(name string) string { return strings.TrimSuffix(name, ".vmdk") + "-flat.vmdk" }

// Makes a machine that runs.
func (f *front) create(body []byte) (interface{}, error) {
	var ask struct {
		Name       string
		Mib        []int64
		Firmware   string
		Controller string
		Mode       string
		Tools      string
		Addresses  []string
		Off        bool
		Snapshot   bool
	}
	if err := json.Unmarshal(body, &ask); err != nil {
		return nil, err
	}
	ctx := context.Background()
	finder := find.NewFinder(f.client.Client)
	dc, err := finder.DefaultDatacenter(ctx)
	if err != nil {
		return nil, err
	}
	finder.SetDatacenter(dc)
	folders, err := dc.Folders(ctx)
	if err != nil {
		return nil, err
	}
	pool, err := finder.ResourcePool(ctx, "DC0_C0/Resources")
	if err != nil {
		return nil, err
	}
	store, err := finder.DefaultDatastore(ctx)
	if err != nil {
		return nil, err
	}
	network, err := finder.Network(ctx, "VM Network")
	if err != nil {
		return nil, err
	}
	var devices object.VirtualDeviceList
	kind := ask.Controller
	if kind == "" {
		kind = "pvscsi"
	}
	controller, err := devices.CreateSCSIController(kind)
	if err != nil {
		return nil, err
	}
	devices = append(devices, controller)
	for at, mib := range ask.Mib {
		name := fmt.Sprintf("[%s] %s/%s", store.Name(), ask.Name, ask.Name)
		if at > 0 {
			name += fmt.Sprintf("_%d", at)
		}
		one := devices.CreateDisk(controller.(types.BaseVirtualController), store.Reference(), name+".vmdk")
		// As vCenter numbers the disks of a machine's first controller.
		one.Key = int32(2000 + at)
		one.CapacityInKB, one.CapacityInBytes = mib<<10, mib<<20
		if ask.Mode != "" {
			one.Backing.(*types.VirtualDiskFlatVer2BackingInfo).DiskMode = ask.Mode
		}
		devices = append(devices, one)
	}
	if ask.Addresses != nil {
		backing, err := network.EthernetCardBackingInfo(ctx)
		if err != nil {
			return nil, err
		}
		nic, err := devices.CreateEthernetCard("vmxnet3", backing)
		if err != nil {
			return nil, err
		}
		devices = append(devices, nic)
	}
	changes, err := devices.ConfigSpec(types.VirtualDeviceConfigSpecOperationAdd)
	if err != nil {
		return nil, err
	}
	spec := types.VirtualMachineConfigSpec{
		Name: ask.Name, GuestId: "debian11_64Guest", NumCPUs: 2, MemoryMB: 512, Firmware: ask.Firmware,
		Files: &types.VirtualMachineFileInfo{VmPathName: fmt.Sprintf("[%s]", store.Name())}, DeviceChange: changes,
	}
	task, err := folders.VmFolder.CreateVM(ctx, spec, pool, nil)
	if err != nil {
		return nil, err
	}
	done, err := task.WaitForResult(ctx, nil)
	if err != nil {
		return nil, err
	}
	ref := done.Result.(types.ManagedObjectReference)
	made := &machine{id: ref.Value, disks: map[int32]*disk{}, snapshots: map[string]int64{}}
	vm := simulator.Map.Get(ref).(*simulator.VirtualMachine)
	folder := simulator.Map.Get(store.Reference()).(*simulator.Datastore).Info.GetDatastoreInfo().Url
	for _, one := range object.VirtualDeviceList(vm.Config.Hardware.Device).SelectByType((*types.VirtualDisk)(nil)) {
		one := one.(*types.VirtualDisk)
		name := one.Backing.(*types.VirtualDiskFlatVer2BackingInfo).FileName
		var where object.DatastorePath
		where.FromString(name)
		path := filepath.Join(folder, flat(where.Path))
		if err := os.Truncate(path, one.CapacityInBytes); err != nil {
			return nil, err
		}
		made.disks[one.Key] = &disk{
			path: path, file: name, size: one.CapacityInBytes,
			delta: map[int64][]byte{}, changed: map[int64]int64{},
		}
	}
	vm.Guest.ToolsRunningStatus = "guestToolsRunning"
	if ask.Tools != "" {
		vm.Guest.ToolsRunningStatus = ask.Tools
	}
	yes := true
	vm.Capability.ChangeTrackingSupported = &yes
	for at := range vm.Guest.Net {
		vm.Guest.Net[at].IpAddress = ask.Addresses
	}
	f.Lock()
	f.machines[ref.Value] = made
	f.Unlock()
	if !ask.Off {
		task, err := object.NewVirtualMachine(f.client.Client, ref).PowerOn(ctx)
		if err != nil {
			return nil, err
		}
		if err := task.Wait(ctx); err != nil {
			return nil, err
		}
	}
	if ask.Snapshot {
		task, err := object.NewVirtualMachine(f.client.Client, ref).CreateSnapshot(ctx, "before the update", "", false, false)
		if err != nil {
			return nil, err
		}
		if err := task.Wait(ctx); err != nil {
			return nil, err
		}
	}
	return map[string]interface{}{"id": ref.Value}, nil
}

func reference(id string) types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "VirtualMachine", Value: id}
}

func (m *machine) vm() *simulator.VirtualMachine {
	return simulator.Map.Get(reference(m.id)).(*simulator.VirtualMachine)
}

// What a test does and looks at.
func (f *front) lab(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	answer := func(what interface{}, err error) {
		if err != nil {
			http.Error(w, err.Error(), http.StatusConflict)
			return
		}
		if bytes, is := what.([]byte); is {
			w.Write(bytes)
			return
		}
		json.NewEncoder(w).Encode(what)
	}
	what := strings.TrimPrefix(r.URL.Path, "/lab/")
	if what == "machines" {
		answer(f.create(body))
		return
	}
	f.Lock()
	defer f.Unlock()
	switch what {
	case "break":
		var one breakage
		err := json.Unmarshal(body, &one)
		f.broken = append(f.broken, one)
		answer(len(f.broken), err)
		return
	case "broken":
		answer(len(f.broken), nil)
		return
	case "calls":
		answer(f.calls, nil)
		return
	case "deaf":
		f.nobody = true
		answer(true, nil)
		return
	}
	made := f.machines[r.URL.Query().Get("machine")]
	if made == nil {
		answer(nil, fmt.Errorf("there is no such machine"))
		return
	}
	vm := made.vm()
	key, _ := strconv.Atoi(r.URL.Query().Get("disk"))
	at, _ := strconv.ParseInt(r.URL.Query().Get("at"), 10, 64)
	one := made.disks[int32(key)]
	switch {
	case what == "machine":
		answer(map[string]interface{}{
			"runs":      vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn,
			"snapshots": len(made.snapshots), "mark": mark(vm),
			"tracking": vm.Config.ChangeTrackingEnabled != nil && *vm.Config.ChangeTrackingEnabled,
		}, nil)
	case one == nil:
		answer(nil, fmt.Errorf("there is no such disk"))
	case what == "read":
		answer(one.read())
	case what == "write" && vm.Runtime.PowerState != types.VirtualMachinePowerStatePoweredOn:
		answer(nil, fmt.Errorf("it is off"))
	case what == "write":
		answer(len(body), made.write(one, at, body))
	default:
		answer(nil, fmt.Errorf("there is no %s", what))
	}
}

func mark(vm *simulator.VirtualMachine) string {
	for _, one := range vm.Config.ExtraConfig {
		if one := one.GetOptionValue(); strings.HasPrefix(one.Key, "skyledger") {
			return fmt.Sprint(one.Value)
		}
	}
	return ""
}

var methodOf = regexp.MustCompile(`<(?:\w+:)?Body[^>]*>\s*<(?:\w+:)?(\w+)`)
var thisOf = regexp.MustCompile(`<(?:\w+:)?_this[^>]*>([^<]*)<`)

func (f *front) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if strings.HasPrefix(r.URL.Path, "/lab/") {
		f.lab(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	call, this := "folder", ""
	if !strings.HasPrefix(r.URL.Path, "/folder") {
		if found := methodOf.FindSubmatch(body); found != nil {
			call = string(found[1])
		}
		if found := thisOf.FindSubmatch(body); found != nil {
			this = string(found[1])
		}
	}
	how := f.fate(call)
	if how == "before" {
		hang(w)
		return
	}
	answer := httptest.NewRecorder()
	f.answer(answer, r, call, this, body)
	if how == "after" {
		hang(w)
		return
	}
	for name, values := range answer.Header() {
		w.Header()[name] = values
	}
	w.WriteHeader(answer.Code)
	io.Copy(w, answer.Body)
}

// What becomes of a call; each breakage is of one.
func (f *front) fate(call string) string {
	f.Lock()
	defer f.Unlock()
	f.calls = append(f.calls, call)
	for at, one := range f.broken {
		if one.Call == call {
			f.broken = append(f.broken[:at], f.broken[at+1:]...)
			return one.How
		}
	}
	return ""
}

func hang(w http.ResponseWriter) {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		conn.Close()
	}
}

func fault(w http.ResponseWriter, name, why string) {
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body><soapenv:Fault>`+
		`<faultcode>ServerFaultCode</faultcode><faultstring>%s</faultstring><detail><%sFault xmlns="urn:vim25" `+
		`xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance" xsi:type="%s"/></detail>`+
		`</soapenv:Fault></soapenv:Body></soapenv:Envelope>`, why, name, name)
}

func (f *front) answer(w http.ResponseWriter, r *http.Request, call, this string, body []byte) {
	switch {
	case call == "folder":
		if _, err := r.Cookie("vmware_soap_session"); err != nil {
			http.Error(w, "no session", http.StatusUnauthorized)
			return
		}
		f.inner.ServeHTTP(w, r)
		return
	case call == "QueryChangedDiskAreas":
		f.changed(w, this, body)
		return
	}
	f.Lock()
	defer f.Unlock()
	if call == "ShutdownGuest" && f.nobody {
		fmt.Fprint(w, `<Envelope><Body><ShutdownGuestResponse xmlns="urn:vim25"/></Body></Envelope>`)
		return
	}
	f.inner.ServeHTTP(w, r)
	switch call {
	case "CreateSnapshot_Task", "RemoveSnapshot_Task":
		for _, made := range f.machines {
			if err := made.layer(); err != nil {
				log.Print(err)
			}
		}
	case "ReconfigVM_Task":
		if made := f.machines[this]; made != nil {
			tidy(made.vm())
		}
	}
}

// A key that is set again has one value, and one without a value is gone.
func tidy(vm *simulator.VirtualMachine) {
	last := map[string]types.BaseOptionValue{}
	for _, one := range vm.Config.ExtraConfig {
		last[one.GetOptionValue().Key] = one
	}
	kept := []types.BaseOptionValue{}
	for _, one := range vm.Config.ExtraConfig {
		if last[one.GetOptionValue().Key] == one && one.GetOptionValue().Value != "" {
			kept = append(kept, one)
		}
	}
	vm.Config.ExtraConfig = kept
}

// Its disks are as many layers as its snapshots make them.
func (m *machine) layer() error {
	vm := m.vm()
	now := map[string]bool{}
	var walk func([]types.VirtualMachineSnapshotTree)
	walk = func(trees []types.VirtualMachineSnapshotTree) {
		for _, tree := range trees {
			now[tree.Snapshot.Value] = true
			walk(tree.ChildSnapshotList)
		}
	}
	if vm.Snapshot != nil {
		walk(vm.Snapshot.RootSnapshotList)
	}
	for id := range now {
		if _, known := m.snapshots[id]; !known {
			m.snapshots[id] = m.writes
			taken := simulator.Map.Get(types.ManagedObjectReference{Type: "VirtualMachineSnapshot", Value: id})
			m.take(taken.(*simulator.VirtualMachineSnapshot))
		}
	}
	for id := range m.snapshots {
		if !now[id] {
			delete(m.snapshots, id)
		}
	}
	for _, one := range m.disks {
		if len(m.snapshots) > 0 {
			continue
		}
		for number, bytes := range one.delta {
			if err := one.put(number*block, bytes); err != nil {
				return err
			}
		}
		one.delta = map[int64][]byte{}
	}
	// The machine's own disks are called after the layer that it writes.
	for _, device := range vm.Config.Hardware.Device {
		if device, is := device.(*types.VirtualDisk); is {
			base := m.disks[device.Key].file
			backing := device.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
			backing.FileName, backing.Parent = base, nil
			if len(m.snapshots) > 0 {
				parent := *backing
				backing.FileName, backing.Parent = strings.TrimSuffix(base, ".vmdk")+"-000001.vmdk", &parent
			}
		}
	}
	return nil
}

// What a snapshot says of the disks: which they were, and which writes it has.
func (m *machine) take(taken *simulator.VirtualMachineSnapshot) {
	devices := append(object.VirtualDeviceList{}, taken.Config.Hardware.Device...)
	tracking := taken.Config.ChangeTrackingEnabled
	for at, device := range devices {
		if device, is := device.(*types.VirtualDisk); is {
			one := m.disks[device.Key]
			backing := *device.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
			if tracking != nil && *tracking {
				one.tracking = true
				backing.ChangeId = fmt.Sprintf("52 d1 2c 9e %s/%d", m.id, m.writes)
			}
			copied := *device
			copied.Backing = &backing
			devices[at] = &copied
		}
	}
	taken.Config.Hardware.Device = devices
}

func (f *front) changed(w http.ResponseWriter, this string, body []byte) {
	var envelope struct {
		Body struct {
			Query struct {
				Snapshot    string `xml:"snapshot"`
				DeviceKey   int32  `xml:"deviceKey"`
				StartOffset int64  `xml:"startOffset"`
				ChangeId    string `xml:"changeId"`
			} `xml:"QueryChangedDiskAreas"`
		} `xml:"Body"`
	}
	if err := xml.Unmarshal(body, &envelope); err != nil {
		fault(w, "InvalidArgument", err.Error())
		return
	}
	query := envelope.Body.Query
	f.Lock()
	defer f.Unlock()
	made := f.machines[this]
	if made == nil {
		fault(w, "ManagedObjectNotFound", "there is no such machine")
		return
	}
	to, known := made.snapshots[query.Snapshot]
	one := made.disks[query.DeviceKey]
	prefix := fmt.Sprintf("52 d1 2c 9e %s/", made.id)
	from, err := strconv.ParseInt(strings.TrimPrefix(query.ChangeId, prefix), 10, 64)
	if !known || one == nil || err != nil {
		fault(w, "InvalidArgument", "A specified parameter was not correct.")
		return
	}
	var areas strings.Builder
	at, found := query.StartOffset/block, 0
	for ; at*block < one.size && found < areasMax; at++ {
		if number := one.changed[at]; number > from && number <= to {
			length := min64(block, one.size-at*block)
			fmt.Fprintf(&areas, "<changedArea><start>%d</start><length>%d</length></changedArea>", at*block, length)
			found++
		}
	}
	length := min64(at*block, one.size) - query.StartOffset
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?>
<soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body>`+
		`<QueryChangedDiskAreasResponse xmlns="urn:vim25"><returnval><startOffset>%d</startOffset><length>%d</length>`+
		`%s</returnval></QueryChangedDiskAreasResponse></soapenv:Body></soapenv:Envelope>`,
		query.StartOffset, length, areas.String())
}

func main() {
	listen := flag.String("l", "127.0.0.1:0", "where it listens")
	secure := flag.Bool("tls", false, "with a certificate of its own")
	flag.Parse()
	log.SetOutput(os.Stderr)
	model := simulator.VPX()
	model.Machine, model.Host, model.Folder = 0, 1, 0
	if err := model.Create(); err != nil {
		log.Fatal(err)
	}
	defer model.Remove()
	model.Service.Listen = &url.URL{Host: "127.0.0.1:0", User: url.UserPassword("mover", "a-password-of-vcenter")}
	inner := model.Service.NewServer()
	client, err := govmomi.NewClient(context.Background(), inner.URL, true)
	if err != nil {
		log.Fatal(err)
	}
	plain := *inner.URL
	plain.User, plain.Path = nil, ""
	handler := &front{
		inner: httputil.NewSingleHostReverseProxy(&plain), client: client, machines: map[string]*machine{},
	}
	// A machine's own certificate, as a vCenter has one that nobody else vouches for.
	lent := httptest.NewUnstartedServer(handler)
	own, err := net.Listen("tcp", *listen)
	if err != nil {
		log.Fatal(err)
	}
	lent.Listener.Close()
	lent.Listener = own
	lent.Config.ErrorLog = log.New(io.Discard, "", 0)
	if *secure {
		lent.TLS = new(tls.Config)
		lent.StartTLS()
	} else {
		lent.Start()
	}
	fmt.Println(lent.URL)
	if *secure {
		fmt.Printf("%x\n", sha256.Sum256(lent.Certificate().Raw))
	}
	// It ends with whoever has started it.
	io.Copy(io.Discard, os.Stdin)
	model.Remove()
	os.Exit(0)
}

