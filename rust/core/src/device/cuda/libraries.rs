//! CUDA's libraries as the system's loader finds them, and what the driver's says.

use std::error::Error;
use std::ffi::{CStr, c_char, c_int, c_uint};
use std::path::PathBuf;

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

use super::{Card, DRIVER, System};

/// `CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR` and `…_MINOR` of cuda.h.
const CAPABILITY: [c_int; 2] = [75, 76];

/// Loads by name, then from `folders`.
pub(super) struct Loaded<'a> {
    folders: &'a [PathBuf],
    driver: Option<Library>,
}

impl<'a> Loaded<'a> {
    pub(super) fn new(folders: &'a [PathBuf]) -> Self {
        Self { folders, driver: None }
    }

    /// Calls the driver's function `name`, whose type is `F`, and makes an error of what it returns.
    fn call<F: Copy>(&self, name: &'static CStr, call: impl FnOnce(F) -> c_int) -> Result<(), String> {
        let function = |name: &CStr| format!("{DRIVER}: expected a function {}, found none", name.to_string_lossy());
        let driver = self.driver.as_ref().ok_or_else(|| function(name))?;
        // SAFETY: the callers give the types of cuda.h.
        let found = unsafe { driver.get::<F>(name.to_bytes_with_nul()) }.map_err(|_| function(name))?;
        match call(*found) {
            0 => Ok(()),
            code => Err(self.text(code)),
        }
    }

    /// The driver's words for an error.
    fn text(&self, code: c_int) -> String {
        type GetErrorString = unsafe extern "C" fn(c_int, *mut *const c_char) -> c_int;
        let mut text = std::ptr::null();
        // SAFETY: the type is that of cuda.h; the text is the driver's own, constant and ended by a zero.
        unsafe {
            let known = self
                .driver
                .as_ref()
                .and_then(|driver| driver.get::<GetErrorString>(c"cuGetErrorString".to_bytes_with_nul()).ok());
            if known.is_some_and(|function| function(code, &mut text) == 0) && !text.is_null() {
                return format!("the driver says: {}", CStr::from_ptr(text).to_string_lossy());
            }
        }
        format!("the driver says: error {code}")
    }
}

impl System for Loaded<'_> {
    fn load(&mut self, name: &str) -> Result<(), String> {
        let mut why = None;
        let paths = std::iter::once(PathBuf::from(name)).chain(self.folders.iter().map(|folder| folder.join(name)));
        for path in paths.filter(|path| path.components().count() == 1 || path.exists()) {
            // SAFETY: a library made to be loaded like this. Others find it by its name once it is there.
            match unsafe { Library::open(Some(&path), RTLD_NOW | RTLD_GLOBAL) } {
                Ok(library) if name == DRIVER => {
                    self.driver = Some(library);
                    return Ok(());
                }
                Ok(library) => {
                    std::mem::forget(library);
                    return Ok(());
                }
                Err(e) => why = Some(e.source().map_or_else(|| e.to_string(), ToString::to_string)),
            }
        }
        Err(why.unwrap_or_else(|| format!("{name}: not found")))
    }

    fn driver_version(&self) -> Result<i32, String> {
        let mut version = 0;
        // SAFETY: the type is that of cuda.h; it may be called before all others.
        self.call(c"cuDriverGetVersion", |f: unsafe extern "C" fn(*mut c_int) -> c_int| unsafe { f(&mut version) })?;
        Ok(version)
    }

    fn cards(&self) -> Result<usize, String> {
        let mut count = 0;
        // SAFETY: the types are those of cuda.h.
        self.call(c"cuInit", |f: unsafe extern "C" fn(c_uint) -> c_int| unsafe { f(0) })?;
        // SAFETY: as above, after `cuInit`.
        self.call(c"cuDeviceGetCount", |f: unsafe extern "C" fn(*mut c_int) -> c_int| unsafe { f(&mut count) })?;
        Ok(usize::try_from(count).unwrap_or_default())
    }

    fn card(&self, number: usize) -> Result<Card, String> {
        type Get = unsafe extern "C" fn(*mut c_int, c_int) -> c_int;
        type Attribute = unsafe extern "C" fn(*mut c_int, c_int, c_int) -> c_int;
        type Name = unsafe extern "C" fn(*mut c_char, c_int, c_int) -> c_int;
        let number = c_int::try_from(number).map_err(|_| format!("expected a card, found number {number}"))?;
        let (mut device, mut capability, mut name) = (0, [0; 2], [0u8; 256]);
        // SAFETY: the types are those of cuda.h, and `cards` has initialised the driver.
        self.call(c"cuDeviceGet", |f: Get| unsafe { f(&mut device, number) })?;
        for (value, attribute) in capability.iter_mut().zip(CAPABILITY) {
            // SAFETY: as above.
            self.call(c"cuDeviceGetAttribute", |f: Attribute| unsafe { f(value, attribute, device) })?;
        }
        // SAFETY: as above; the driver writes no more than the given length, the zero at the end included.
        self.call(c"cuDeviceGetName", |f: Name| unsafe { f(name.as_mut_ptr().cast(), 256, device) })?;
        let name = CStr::from_bytes_until_nul(&name).map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        Ok(Card { name, capability: (capability[0], capability[1]) })
    }
}

impl Drop for Loaded<'_> {
    /// The driver's library stays: Candle's handle to it would not survive its end.
    fn drop(&mut self) {
        std::mem::forget(self.driver.take());
    }
}
