//! AES-GCM by Intel's Multi-Buffer Crypto for IPsec Library (intel-ipsec-mb, Debian: libipsec-mb1), loaded when it is asked for.
//!
//! The one place of `esp` with unsafe code ([023](../../../../docs/decisions/023-which-aes-gcm.md)): a C library is loaded, asked
//! for six functions, and these are called with memory that Rust slices vouch for. What the library says of itself is checked
//! before the first key: its version, that the functions are inside it, and known answers.

use std::{
    ffi::{c_int, c_void},
    mem,
    sync::OnceLock,
};

use libloading::Library;

use super::{Aead, AesKey, ICV_LEN, NONCE_LEN};

/// As the dynamic linker knows the library: the ABI of version 1.
const SONAME: &str = "libIPSec_MB.so.1";
/// Versions with the interface below: from 1.3.0 on, to 2.0.0 without it (`IMB_VERSION` in the header).
const VERSIONS: std::ops::Range<u32> = 0x01_03_00..0x02_00_00;
/// `IMB_ARCH_NOAESNI`: emulates AES by tables, and neither fast nor in constant time.
const ARCH_EMULATION: u32 = 1;
const ARCHS: [&str; 6] = ["none", "no AES-NI", "SSE", "AVX", "AVX2", "AVX-512"];

/// The library is of no use.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Not found, or not loadable.
    #[error("{0}: install the Debian package libipsec-mb1 (1.3 or newer)")]
    Absent(String),
    /// Its interface is that of x86-64.
    #[error("intel-ipsec-mb is for x86-64 processors")]
    Processor,
    /// No AES instructions: the library would emulate them.
    #[error("this processor has no AES instructions that intel-ipsec-mb could use")]
    NoAes,
    /// Too old, or too new.
    #[error("intel-ipsec-mb {}.{}.{}: 1.3.0 to 1.x is needed", .0 >> 16, .0 >> 8 & 0xff, .0 & 0xff)]
    Version(u32),
    /// It has no memory for its manager.
    #[error("intel-ipsec-mb does not start: no memory")]
    NoManager,
    /// Its manager is not laid out as its version says.
    #[error("intel-ipsec-mb is not laid out as its header of version 1.3 says: another build of the library is needed")]
    Layout,
    /// A known answer is not what it computes.
    #[error("intel-ipsec-mb computes AES-GCM wrongly on this processor")]
    WrongAnswer,
}

/// `struct gcm_key_data`: 1,024 octets, and room for versions that keep more powers of the hash key.
#[repr(C, align(64))]
struct KeyData([u8; 2048]);

impl Drop for KeyData {
    fn drop(&mut self) {
        self.0.fill(0);
        // Keeps the writes: nobody reads the memory after them.
        std::hint::black_box(&self.0);
    }
}

/// `struct gcm_context_data`: 88 octets. The library's scratch for one call.
#[repr(C, align(64))]
struct Context(mem::MaybeUninit<[u8; 128]>);

/// `aes_gcm_enc_dec_t`: key, context, out, in, their length, initialisation vector (12 octets), additional data and its length, check
/// value and its length.
type Run = unsafe extern "C" fn(
    *const KeyData,
    *mut Context,
    *mut u8,
    *const u8,
    u64,
    *const u8,
    *const u8,
    u64,
    *mut u8,
    u64,
);
/// `aes_gcm_pre_t`: key, and what is expanded.
type Expand = unsafe extern "C" fn(*const c_void, *mut KeyData);

/// The beginning of `struct IMB_MGR`. Its functions only ever grow at the end: "changes here can break ABI compatibility".
#[repr(C)]
struct Manager {
    flags: u64,
    features: u64,
    reserved: [u64; 5],
    used_arch: u32,
    errno: c_int,
    /// From `get_next_job` to `aes128_cfb_one`.
    before: [*const c_void; 24],
    enc_128: Option<Run>,
    enc_192: Option<Run>,
    enc_256: Option<Run>,
    dec_128: Option<Run>,
    dec_192: Option<Run>,
    dec_256: Option<Run>,
    /// From `gcm128_init` to `gcm256_precomp`.
    between: [*const c_void; 18],
    pre_128: Option<Expand>,
    pre_192: Option<Expand>,
    pre_256: Option<Expand>,
}

/// The functions for one length of key.
#[derive(Clone, Copy)]
struct Of {
    expand: Expand,
    seal: Run,
    open: Run,
}

/// What is used of the library. Valid for as long as the process lives: the library is never unloaded.
pub(super) struct Functions {
    of_128: Of,
    of_256: Of,
    version: u32,
    arch: u32,
}

/// Loads the library, once.
pub(super) fn load() -> Result<&'static Functions, LoadError> {
    static LOADED: OnceLock<Result<Functions, LoadError>> = OnceLock::new();
    LOADED.get_or_init(open_library).as_ref().map_err(Clone::clone)
}

fn open_library() -> Result<Functions, LoadError> {
    if !cfg!(target_arch = "x86_64") {
        return Err(LoadError::Processor);
    }
    // SAFETY: loading runs the library's constructors: those of intel-ipsec-mb only fill tables of its own.
    let library = unsafe { Library::new(SONAME) }.map_err(|error| LoadError::Absent(error.to_string()))?;
    // Its functions are used until the process ends.
    let library: &'static Library = Box::leak(Box::new(library));
    let functions = ask(library)?;
    functions.prove()?;
    Ok(functions)
}

fn ask(library: &'static Library) -> Result<Functions, LoadError> {
    let absent = |error: libloading::Error| LoadError::Absent(error.to_string());
    // SAFETY: a function without arguments that returns a number, since version 0.50.
    let version = unsafe { library.get::<unsafe extern "C" fn() -> u32>(b"imb_get_version\0") }.map_err(absent)?;
    // SAFETY: as above.
    let version = unsafe { version() };
    if !VERSIONS.contains(&version) {
        return Err(LoadError::Version(version));
    }
    // SAFETY: the types of these three are those of intel-ipsec-mb.h, for all versions that got here.
    let (alloc, init, free) = unsafe {
        (
            library.get::<unsafe extern "C" fn(u64) -> *mut Manager>(b"alloc_mb_mgr\0").map_err(absent)?,
            library.get::<unsafe extern "C" fn(*mut Manager, *mut u32)>(b"init_mb_mgr_auto\0").map_err(absent)?,
            library.get::<unsafe extern "C" fn(*mut Manager)>(b"free_mb_mgr\0").map_err(absent)?,
        )
    };
    let home = object_of(*alloc as *const c_void).ok_or(LoadError::Layout)?;
    let mut arch = 0;
    // SAFETY: flags 0 are "whatever the processor has"; null is "no memory".
    let manager = unsafe { alloc(0) };
    if manager.is_null() {
        return Err(LoadError::NoManager);
    }
    // SAFETY: the manager was allocated by the library itself, and `arch` is a C enum.
    unsafe { init(manager, &raw mut arch) };
    // SAFETY: the library has allocated and filled the manager, which is longer than what is read of it. Pointers to functions may
    // be null here, and nothing is called before it is known where it points to.
    let made = unsafe { &*manager };
    let runs = [made.enc_128, made.dec_128, made.enc_256, made.dec_256];
    let expands = [made.pre_128, made.pre_256];
    // SAFETY: it was allocated by the library, and is not used any more: the functions for GCM take no manager.
    unsafe { free(manager) };
    let ([Some(enc_128), Some(dec_128), Some(enc_256), Some(dec_256)], [Some(pre_128), Some(pre_256)]) =
        (runs, expands)
    else {
        return Err(LoadError::Layout);
    };
    let runs = [enc_128, dec_128, enc_256, dec_256].map(|run| run as *const c_void);
    let expands = [pre_128, pre_256].map(|expand| expand as *const c_void);
    if runs.into_iter().chain(expands).any(|function| object_of(function) != Some(home)) {
        return Err(LoadError::Layout);
    }
    if arch <= ARCH_EMULATION {
        return Err(LoadError::NoAes);
    }
    let of_128 = Of { expand: pre_128, seal: enc_128, open: dec_128 };
    let of_256 = Of { expand: pre_256, seal: enc_256, open: dec_256 };
    Ok(Functions { of_128, of_256, version, arch })
}

/// Where the shared object begins that has this function; `None`: no object has it.
fn object_of(function: *const c_void) -> Option<usize> {
    let mut info = mem::MaybeUninit::<libc::Dl_info>::zeroed();
    // SAFETY: the linker compares the address with those of the objects, whatever it is, and fills what it is given.
    let found = unsafe { libc::dladdr(function, info.as_mut_ptr()) };
    // SAFETY: filled, or zeroes, which are null pointers.
    let info = unsafe { info.assume_init() };
    (found != 0).then_some(info.dli_fbase as usize)
}

impl Functions {
    pub(super) fn expand(&self, key: &AesKey<'_>) -> Expanded {
        let (of, octets) = match key {
            AesKey::Of128(octets) => (self.of_128, octets.as_ptr()),
            AesKey::Of256(octets) => (self.of_256, octets.as_ptr()),
        };
        let mut data = Box::new(KeyData([0; 2048]));
        // SAFETY: the function reads 16 or 32 octets of key, by its name, which the arrays have, and writes a `gcm_key_data`, which is
        // shorter than `KeyData` and aligned as it has to be.
        unsafe { (of.expand)(octets.cast(), &raw mut *data) };
        Expanded { data, seal: of.seal, open: of.open }
    }

    pub(super) fn detail(&self) -> String {
        let Self { version, arch, .. } = self;
        let arch = ARCHS.get(*arch as usize).unwrap_or(&"?");
        format!("{}.{}.{}, {arch}", version >> 16, version >> 8 & 0xff, version & 0xff)
    }

    /// Test cases 2 and 14 of "The Galois/Counter Mode of Operation" (McGrew and Viega, 2005): all zeroes.
    fn prove(&self) -> Result<(), LoadError> {
        let of_128 =
            (AesKey::Of128(&[0; 16]), 0x0388_dace_60b6_a392_f328_c2b9_71b2_fe78_u128, [0xab, 0x6e, 0x47, 0xd4]);
        let of_256 =
            (AesKey::Of256(&[0; 32]), 0xcea7_403d_4d60_6b6e_074e_c5d3_baf3_9d18_u128, [0xd0, 0xd1, 0xc8, 0xa7]);
        for (key, cipher, check) in [of_128, of_256] {
            let expanded = self.expand(&key);
            let (mut text, mut icv) = ([0; 16], [0; ICV_LEN]);
            expanded.seal(&[0; NONCE_LEN], &[], &mut text, &mut icv);
            let sealed = text == cipher.to_be_bytes() && icv.starts_with(&check);
            let opened = expanded.open(&[0; NONCE_LEN], &[], &mut text, &icv) && text == [0; 16];
            icv[15] ^= 1;
            if !sealed || !opened || expanded.open(&[0; NONCE_LEN], &[], &mut text, &icv) {
                return Err(LoadError::WrongAnswer);
            }
        }
        Ok(())
    }
}

/// An expanded key, and the functions for its length.
pub(in crate::esp) struct Expanded {
    data: Box<KeyData>,
    seal: Run,
    open: Run,
}

impl Expanded {
    /// Runs one of the two functions over `text` in place.
    #[inline]
    fn run(&self, run: Run, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &mut [u8; ICV_LEN]) {
        let mut context = Context(mem::MaybeUninit::uninit());
        let out = text.as_mut_ptr();
        // SAFETY: `data` was expanded for this function, which is of a library that is never unloaded. It reads and writes `text` at
        // its length (in place is allowed by its documentation), reads 12 octets of the nonce and `aad` at its length, writes 16
        // octets of check value, and uses the context as scratch, which is larger than the `gcm_context_data` that it takes it for.
        // It keeps none of the pointers.
        unsafe {
            run(
                &raw const *self.data,
                &raw mut context,
                out,
                out.cast_const(),
                text.len() as u64,
                nonce.as_ptr(),
                aad.as_ptr(),
                aad.len() as u64,
                icv.as_mut_ptr(),
                ICV_LEN as u64,
            );
        }
    }
}

impl Aead for Expanded {
    #[inline]
    fn seal(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &mut [u8; ICV_LEN]) {
        self.run(self.seal, nonce, aad, text, icv);
    }

    #[inline]
    fn open(&self, nonce: &[u8; NONCE_LEN], aad: &[u8], text: &mut [u8], icv: &[u8; ICV_LEN]) -> bool {
        let mut computed = [0; ICV_LEN];
        self.run(self.open, nonce, aad, text, &mut computed);
        // All octets at once: the time tells nothing of where they differ.
        let same = u128::from_ne_bytes(computed) ^ u128::from_ne_bytes(*icv) == 0;
        if !same {
            text.fill(0);
        }
        same
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_manager_is_laid_out_as_in_the_header_of_1_3() {
        assert_eq!(mem::offset_of!(Manager, before), 64);
        assert_eq!(mem::offset_of!(Manager, enc_128), 64 + 24 * 8);
        assert_eq!(mem::offset_of!(Manager, pre_128), 64 + 48 * 8);
    }

    #[test]
    fn what_is_missing_is_said_with_the_package_that_has_it() {
        let told = LoadError::Absent(format!("{SONAME}: cannot open shared object file")).to_string();
        assert!(told.contains(SONAME) && told.contains("libipsec-mb1"), "{told}");
        assert!(LoadError::Version(0x01_02_00).to_string().starts_with("intel-ipsec-mb 1.2.0: 1.3.0"));
    }

    #[test]
    fn a_function_of_another_object_is_told_from_one_of_the_library() {
        let here = object_of(object_of as *const c_void);
        let there = object_of(libc::malloc as *const c_void);
        assert!(here.is_some() && there.is_some());
        assert_eq!(object_of(std::ptr::without_provenance(8)), None);
        assert_eq!(object_of(std::ptr::null()), None);
    }

    /// The memory of a key after it was dropped in place.
    #[test]
    fn an_expanded_key_is_zeroes_when_it_is_dropped() {
        let Ok(functions) = load() else {
            eprintln!("intel-ipsec-mb is not installed: `make setup`");
            return;
        };
        let expanded = functions.expand(&AesKey::Of128(&[0x5a; 16]));
        assert!(expanded.data.0.starts_with(&[0x5a; 16]), "the first round key is the key");
        let mut data = mem::ManuallyDrop::new(KeyData(expanded.data.0));
        // SAFETY: dropped once; its memory, plain octets, is on the stack until the test ends.
        let octets = unsafe {
            mem::ManuallyDrop::drop(&mut data);
            (&raw const data).cast::<[u8; 2048]>().read()
        };
        assert!(octets.iter().all(|octet| *octet == 0));
    }
}
