//! Products of parts of matrices, on one thread: what the rest of this module spends its time in.

/// A matrix inside a slice: element (i, j) is `data[i · row_stride + j · col_stride]`.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    data: &'a [f32],
    rows: usize,
    cols: usize,
    row_stride: usize,
    col_stride: usize,
}

impl<'a> View<'a> {
    /// The first `rows × cols` elements of rows that are `stride` apart.
    pub fn new(data: &'a [f32], rows: usize, cols: usize, stride: usize) -> Self {
        assert!(rows == 0 || (rows - 1) * stride + cols <= data.len(), "a view stays inside its slice");
        View { data, rows, cols, row_stride: stride, col_stride: 1 }
    }

    /// The same elements with rows and columns exchanged.
    pub fn transposed(self) -> Self {
        let View { data, rows, cols, row_stride, col_stride } = self;
        View { data, rows: cols, cols: rows, row_stride: col_stride, col_stride: row_stride }
    }
}

/// What a view that begins at an element sees; nothing behind the last.
pub(super) fn from(data: &[f32], first: usize) -> &[f32] {
    data.get(first..).unwrap_or(&[])
}

/// `c += factor · a · b`, where `c` is dense, row by row. The order of additions depends on the shapes alone.
pub(super) fn add_product(c: &mut [f32], factor: f32, a: View<'_>, b: View<'_>) {
    assert_eq!(a.cols, b.rows, "inner dimensions agree");
    assert_eq!(c.len(), a.rows * b.cols, "the result is dense");
    let strides = |v: View<'_>| (v.row_stride as isize, v.col_stride as isize);
    let ((ars, acs), (brs, bcs)) = (strides(a), strides(b));
    // SAFETY: both views lie inside their slices and `c` holds `a.rows × b.cols` elements, as checked on construction
    // and above; `c` is borrowed mutably, so it overlaps neither.
    unsafe {
        matrixmultiply::sgemm(
            a.rows,
            a.cols,
            b.cols,
            factor,
            a.data.as_ptr(),
            ars,
            acs,
            b.data.as_ptr(),
            brs,
            bcs,
            1.0,
            c.as_mut_ptr(),
            b.cols as isize,
            1,
        );
    }
}
