"""The reading of photos once more, as TensorFlow operations, for models that take image bytes.

The same definition as `rw_keras.photos.reading`, and for JPEG, PNG, WebP and BMP the same pixels: the decoders are the same
libraries with the same settings, transparency and resizing repeat Pillow's fixed-point arithmetic. Where they cannot agree:

- GIF: transparent pixels of the first frame come out as TensorFlow's decoder leaves them, not white.
- The orientation is read from EXIF in JPEG, PNG (`eXIf`) and WebP, not from XMP.
- BMP of fewer than 8 bits a pixel, TIFF and other formats fail the request.

A photo of more than `MOST_PIXELS` is refused before it is decoded; the frames of an animated WebP count together, because
its decoder gives all. One at the limit takes some 0.8 GB, twice that where it has to be turned, or is a progressive JPEG:
what is decoded stays in bytes, and is turned into wider numbers by bands of rows.
"""

import tensorflow as tf

_JPEG, _PNG, _WEBP, _BMP, _GIF, _UNKNOWN = range(6)

READS_WEBP = hasattr(tf.io, "decode_webp")  # not in TensorFlow 2.18
_FORMATS = "JPEG, PNG, WebP, BMP or GIF" if READS_WEBP else "JPEG, PNG, BMP or GIF"

# As many as Pillow, and so `rw_keras.photos.reading`, takes: more is an attack on memory.
MOST_PIXELS = 178956970

# Pixels of the bands of rows that are filtered at a time.
_BAND = 1 << 20

# Pillow's fixed point: 8 bits for the pixel, 2 for what a filter with negative lobes overshoots, 22 for the coefficient.
_PRECISION = 22


def read_image(content: tf.Tensor, max_side: int, name: tf.Tensor, box: tf.Tensor | None = None, min_side: int = 1) -> tf.Tensor:
    """Decodes, turns upright, crops and reduces one photo.

    Args:
        content: scalar string tensor, the bytes of a file.
        max_side: the longer side of the whole photo is reduced to so many pixels.
        name: scalar string tensor: what errors call this photo.
        box: `(4,)` float tensor x1, y1, x2, y2 in pixels of the upright full-size photo, or `None`.
        min_side: the fewest pixels that a side of the result may have.

    Returns:
        `(H, W, 3)` uint8 tensor.
    """
    photo, see_through = _decode(content, name)
    height, width = tf.shape(photo)[0], tf.shape(photo)[1]
    factor = tf.minimum(max_side / tf.cast(tf.maximum(height, width), tf.float64), 1.0)
    if box is not None:
        photo = _crop(photo, box, name)
    sides = tf.cast(tf.cast(tf.shape(photo)[:2], tf.float64) * factor + 0.5, tf.int32)
    too_small = tf.strings.format(
        "is {} pixels high and wide, too small: each side needs {} or more after max_side={}.", (sides, min_side, max_side)
    )
    with tf.control_dependencies([tf.debugging.Assert(tf.reduce_min(sides) >= min_side, [name, too_small])]):
        sides = tf.identity(sides)
    return tf.ensure_shape(_reduce(photo, see_through, sides[0], sides[1]), (None, None, 3))


def _decode(content, name):
    """`(H, W, C)` uint8, upright, and whether there is a transparency, its fourth channel; there may be a fourth that is none."""
    kind = _kind(content)
    known = tf.debugging.Assert(kind != _UNKNOWN, [name, f"is not a {_FORMATS} file."])
    with tf.control_dependencies([known]):
        # Of an animation only the first frame goes to the decoder, which would decode them all.
        content, frame = tf.cond(kind == _GIF, lambda: _first_of_gif(content), lambda: (content, tf.zeros((4,), tf.int32)))
        pixels = _pixels(content, kind, frame)
    sane = tf.debugging.Assert(pixels <= MOST_PIXELS, [name, "has", pixels, f"pixels, more than the {MOST_PIXELS} of a photo."])
    opaque = tf.constant(False)
    with tf.control_dependencies([sane]):
        photo, see_through = tf.switch_case(
            kind,
            {
                _JPEG: lambda: (tf.io.decode_jpeg(content, channels=3, dct_method="INTEGER_ACCURATE"), opaque),
                _PNG: lambda: _decode_png(content),
                _WEBP: lambda: _decode_webp(content),
                _BMP: lambda: (_decode_bmp(content, name), opaque),
                _GIF: lambda: (tf.io.decode_gif(content)[0], opaque),
            },
        )
    photo = tf.ensure_shape(photo, (None, None, None))
    return _upright(photo, _orientation(content, kind)), see_through


def _pixels(content, kind, frame):
    """How many pixels the header tells, before any is decoded; `frame` is the first frame's place and size in a GIF."""
    header = tf.cast(_bytes(tf.strings.join([content, b"\0" * 32]), 0, 32), tf.int64)

    def product(width, height):
        return tf.abs(width * height)

    def signed(number):  # a BMP whose height is negative runs from the top down
        return tf.where(number >= 2**31, number - 2**32, number)

    def webp():
        size = _little(header[21:25])  # of a lossless one: 14 bits each
        sides = tf.stack(
            [
                [1 + _little(header[24:27]), 1 + _little(header[27:30])],
                [1 + size % 2**14, 1 + size // 2**14 % 2**14],
                [_little(header[26:28]) % 2**14, _little(header[28:30]) % 2**14],
            ]
        )
        own = tf.where(header[15] == ord("X"), 0, tf.where(header[15] == ord("L"), 1, 2))
        frames = tf.cond(own == 0, lambda: _frames_of_webp(content), lambda: tf.constant(1, tf.int64))
        return product(sides[own, 0], sides[own, 1]) * tf.maximum(frames, 1)

    def gif():
        frame_sides = tf.cast(frame[:2] + frame[2:], tf.int64)
        return product(tf.maximum(_little(header[6:8]), frame_sides[0]), tf.maximum(_little(header[8:10]), frame_sides[1]))

    return tf.switch_case(
        kind,
        {
            _JPEG: lambda: tf.reduce_prod(tf.cast(tf.io.extract_jpeg_shape(content)[:2], tf.int64)),
            _PNG: lambda: product(_big(header[16:20]), _big(header[20:24])),
            _WEBP: webp,
            _BMP: lambda: product(signed(_little(header[18:22])), signed(_little(header[22:26]))),
            _GIF: gif,
        },
        default=lambda: tf.constant(0, tf.int64),
    )


def _frames_of_webp(content):
    """How many frames the chunks of a WebP hold."""
    length = tf.cast(tf.strings.length(content), tf.int64)

    def step(position, frames):
        head = tf.cast(_bytes(content, tf.cast(position, tf.int32), 8), tf.int64)
        size = _little(head[4:8])
        return position + 8 + size + size % 2, frames + tf.cast(tf.reduce_all(head[:4] == list(b"ANMF")), tf.int64)

    start = (tf.constant(12, tf.int64), tf.constant(0, tf.int64))
    return tf.while_loop(lambda position, frames: position + 8 <= length, step, start)[1]


def _first_of_gif(content):
    """A GIF cut off after its first frame, and left, top, width and height of that."""
    length = tf.strings.length(content)
    padded = tf.strings.join([content, b"\0" * 32])
    at_block, in_extension, in_frame, done = range(4)

    def colours(flags):  # bytes of a table of colours
        return tf.where(flags >= 128, 3 * tf.bitwise.left_shift(2, flags % 8), 0)

    def step(position, state, frame):
        here = _bytes(padded, position, 10)
        first = here[0]
        is_frame, is_extension = first == 0x2C, first == 0x21
        block = tf.where(is_frame, position + 11 + colours(here[9]), position + 2)
        part = position + 1 + first
        after_block = tf.where(is_frame, in_frame, tf.where(is_extension, in_extension, done))
        after_part = tf.where(first > 0, state, tf.where(state == in_frame, done, at_block))
        found = tf.stack([_little(here[place : place + 2]) for place in (1, 3, 5, 7)])
        frame = tf.where(tf.logical_and(state == at_block, is_frame), found, frame)
        position = tf.where(state == at_block, block, part)
        return tf.minimum(position, length), tf.where(state == at_block, after_block, after_part), frame

    start = 13 + colours(_bytes(padded, 10, 1)[0])
    position, _, frame = tf.while_loop(
        lambda position, state, _: tf.logical_and(state != done, position < length),
        step,
        (tf.minimum(start, length), tf.constant(at_block), tf.zeros((4,), tf.int32)),
    )
    return tf.strings.join([tf.strings.substr(content, 0, position), b";"]), frame


def _kind(content):
    """Which format the first bytes tell."""

    def at(position, *signatures):
        return tf.reduce_any([tf.strings.substr(content, position, len(sign)) == sign for sign in signatures])

    content = tf.strings.join([content, b"\0" * 12])  # so that there are 12 bytes to look at
    kind = tf.where(at(0, b"GIF87a", b"GIF89a"), _GIF, _UNKNOWN)
    kind = tf.where(at(0, b"BM"), _BMP, kind)
    if READS_WEBP:
        kind = tf.where(tf.logical_and(at(0, b"RIFF"), at(8, b"WEBP")), _WEBP, kind)
    kind = tf.where(at(0, b"\x89PNG\r\n\x1a\n"), _PNG, kind)
    return tf.where(at(0, b"\xff\xd8\xff"), _JPEG, kind)


def _multiplied(photo):
    """`(H, W, 4)` with its colours multiplied by its transparency, in Pillow's integer arithmetic."""
    colour, alpha = tf.cast(photo[..., :3], tf.int32), tf.cast(photo[..., 3:], tf.int32)
    product = colour * alpha + 0x80
    product = tf.bitwise.right_shift(tf.bitwise.right_shift(product, 8) + product, 8)
    return tf.concat([tf.cast(product, tf.uint8), photo[..., 3:]], axis=-1)


def _over_white(photo):
    """`(H, W, 4)` of `_multiplied`, reduced or not, laid over white."""
    colour, alpha = photo[..., :3], photo[..., 3:]
    return 255 - (alpha - tf.minimum(colour, alpha))


def _decode_png(content):
    photo = tf.io.decode_png(content, channels=4)
    # Where a PNG of fewer than 8 bits has no transparency, TensorFlow fills alpha with the largest value of that depth, not 255.
    depth = tf.minimum(_bytes(content, 24, 1)[0], 8)
    filler = tf.cast(tf.bitwise.left_shift(1, depth) - 1, tf.uint8)
    least, most = (reduce(photo, axis=(0, 1))[3] for reduce in (tf.reduce_min, tf.reduce_max))
    return photo, tf.logical_or(least != filler, most != filler)


def _decode_webp(content):
    if not READS_WEBP:  # `_kind` never says so then; the branch has to be there
        return tf.zeros((0, 0, 3), tf.uint8), tf.constant(False)
    photo = tf.io.decode_webp(content)[0]  # the first frame
    return photo, tf.shape(photo)[-1] == 4


def _decode_bmp(content, name):
    """A BMP of 8 (with its palette), 24 or 32 bits a pixel; the fourth byte of 32 is not a transparency."""
    header = _bytes(content, 0, 30)
    pixels_at, header_size, bits = _little(header[10:14]), _little(header[14:18]), _little(header[28:30])
    with tf.control_dependencies([tf.debugging.Assert(bits >= 8, [name, "is a BMP of fewer than 8 bits a pixel."])]):
        photo = tf.io.decode_bmp(content)

    def from_palette():
        palette = tf.reshape(_bytes(content, 14 + header_size, (pixels_at - 14 - header_size) // 4 * 4), (-1, 4))
        return tf.gather(tf.cast(palette[:, 2::-1], tf.uint8), tf.cast(photo[..., 0], tf.int32))

    return tf.cond(bits == 8, from_palette, lambda: photo)


def _orientation(content, kind):
    """The EXIF orientation, 1 to 8; 1 where there is none."""
    nowhere = tf.constant(-1)
    exif_at = tf.switch_case(
        kind,
        {
            _JPEG: lambda: _exif_in_jpeg(content),
            _PNG: lambda: _exif_in_chunks(content, 8, png=True),
            _WEBP: lambda: _exif_in_chunks(content, 12, png=False),
        },
        default=lambda: nowhere,
    )
    return tf.cond(exif_at >= 0, lambda: _orientation_at(content, exif_at), lambda: tf.constant(1))


def _exif_in_jpeg(content):
    """Where the TIFF structure of a JPEG's EXIF segment starts, or -1."""
    length = tf.strings.length(content)

    def more(position, found):
        return tf.logical_and(found < 0, position + 10 <= length)

    def step(position, found):
        head = _bytes(content, position, 10)
        marker, size = head[1], 256 * head[2] + head[3]
        # The pixels begin, or this is no segment: there is no EXIF to come.
        over = tf.logical_or(head[0] != 0xFF, tf.logical_or(marker == 0xDA, marker == 0xD9))
        exif = tf.logical_and(marker == 0xE1, tf.reduce_all(head[4:] == list(b"Exif\0\0")))
        found = tf.where(tf.logical_and(exif, ~over), position + 10, found)
        after = tf.where(marker == 0xFF, position + 1, position + 2 + size)  # markers may be padded with 0xFF
        return tf.where(over, length, after), found

    return tf.while_loop(more, step, (tf.constant(2), tf.constant(-1)))[1]


def _exif_in_chunks(content, first, png):
    """Where the TIFF structure of a PNG's `eXIf` or a WebP's `EXIF` chunk starts, or -1."""
    length = tf.cast(tf.strings.length(content), tf.int64)

    def more(position, found):
        return tf.logical_and(found < 0, position + 14 <= length)

    def step(position, found):
        head = tf.cast(_bytes(content, tf.cast(position, tf.int32), 14), tf.int64)
        name, size = (head[4:8], _big(head[:4])) if png else (head[:4], _little(head[4:8]))
        exif = tf.reduce_all(name == list(b"eXIf" if png else b"EXIF"))
        prefixed = tf.reduce_all(head[8:14] == list(b"Exif\0\0"))
        start = position + 8 + tf.where(prefixed, tf.constant(6, tf.int64), tf.constant(0, tf.int64))
        after = position + size + (12 if png else 8 + size % 2)
        return after, tf.where(exif, start, found)

    return tf.cast(tf.while_loop(more, step, (tf.constant(first, tf.int64), tf.constant(-1, tf.int64)))[1], tf.int32)


def _orientation_at(content, start):
    """The orientation that a TIFF structure holds; 1 where it holds none, or is damaged."""
    length = tf.strings.length(content) - start

    def number(values):
        return tf.where(little, _little(values), _big(values))

    # Bytes past the end read as 0, so that damage leads to no entry, and not to an error.
    content = tf.strings.join([tf.strings.substr(content, start, length), b"\0" * 14])
    little = tf.reduce_all(_bytes(content, 0, 2) == list(b"II"))
    directory = tf.clip_by_value(number(_bytes(content, 4, 4)), 0, tf.maximum(length, 0))
    entries = tf.minimum(number(_bytes(content, directory, 2)), (length + 12 - directory) // 12)
    table = tf.reshape(_bytes(content, directory + 2, 12 * tf.maximum(entries, 0)), (-1, 12))
    tags = tf.where(little, table[:, 0] + 256 * table[:, 1], 256 * table[:, 0] + table[:, 1])
    values = tf.where(little, table[:, 8] + 256 * table[:, 9], 256 * table[:, 8] + table[:, 9])
    value = tf.concat([values[tags == 0x0112], [1]], axis=0)[0]
    return tf.where(tf.logical_and(value >= 1, value <= 8), value, 1)


def _upright(photo, orientation):
    turned = tf.cond(orientation >= 5, lambda: tf.transpose(photo, (1, 0, 2)), lambda: photo)
    # After that transposition, which axes are still to be reversed: rows, columns.
    rows = tf.reduce_any(orientation == [3, 4, 7, 8])
    columns = tf.reduce_any(orientation == [2, 3, 6, 7])
    turned = tf.cond(rows, lambda: tf.reverse(turned, [0]), lambda: turned)
    return tf.cond(columns, lambda: tf.reverse(turned, [1]), lambda: turned)


def _crop(photo, box, name):
    limits = tf.cast(tf.stack([tf.shape(photo)[1], tf.shape(photo)[0]] * 2), tf.float64)
    box = tf.cast(box, tf.float64)
    inside = tf.logical_and(tf.reduce_all(box[:2] > -1), tf.reduce_all(box[2:] < limits[2:] + 1))
    corners = tf.cast(tf.clip_by_value(tf.floor(box + 0.5), 0, limits), tf.int32)
    ordered = tf.logical_and(corners[0] < corners[2], corners[1] < corners[3])
    where = tf.strings.format("is {} pixels wide and high; its box {} leaves it or is empty.", (limits[:2], box))
    with tf.control_dependencies([tf.debugging.Assert(tf.logical_and(inside, ordered), [name, where])]):
        return photo[corners[1] : corners[3], corners[0] : corners[2]]


def _reduce(photo, see_through, height, width):
    """Pillow's bicubic `resize`: first along rows, then along columns, each rounded to 8 bits; transparency is laid over white."""
    before, wide = tf.shape(photo)[0], tf.shape(photo)[1]
    rows_of_band = tf.maximum(_BAND // wide, 1)
    along_rows = _filter(wide, width)

    def step(number, bands):
        start = number * rows_of_band
        band = photo[start : start + rows_of_band]
        band = tf.cond(see_through, lambda: _multiplied(band), lambda: band[..., :3])
        columns_first = tf.transpose(band, (1, 0, 2))
        filtered = tf.cond(wide == width, lambda: band, lambda: tf.transpose(_filtered(columns_first, along_rows), (1, 0, 2)))
        return number + 1, bands.write(number, filtered)

    count = -(-before // rows_of_band)
    bands = tf.TensorArray(tf.uint8, count, infer_shape=False, element_shape=(None, None, None))
    _, bands = tf.while_loop(lambda number, _: number < count, step, (0, bands), parallel_iterations=2)
    rows = bands.concat()
    rows = tf.cond(before == height, lambda: rows, lambda: _filtered(rows, _filter(before, height)))
    return tf.cond(see_through, lambda: _over_white(rows), lambda: rows)


def _filter(before, size):
    """The matrix `(size, before)` that resamples an axis, in Pillow's fixed-point numbers."""
    scale = tf.cast(before, tf.float64) / tf.cast(size, tf.float64)
    widening = tf.maximum(scale, 1.0)
    support = 2.0 * widening  # the bicubic filter reaches two places to each side
    centres = (tf.range(tf.cast(size, tf.float64), dtype=tf.float64) + 0.5) * scale
    first = tf.maximum(tf.cast(centres - support + 0.5, tf.int32), 0)
    last = tf.minimum(tf.cast(centres + support + 0.5, tf.int32), before)
    places = first[:, None] + tf.range(2 * tf.cast(tf.math.ceil(support), tf.int32) + 1)
    used = places < last[:, None]
    weights = _bicubic((tf.cast(places, tf.float64) - centres[:, None] + 0.5) / widening)
    weights = tf.where(used, weights, tf.zeros_like(weights))
    weights = weights / tf.reduce_sum(weights, axis=1, keepdims=True) * 2.0**_PRECISION
    weights = tf.cast(tf.sign(weights) * tf.floor(tf.abs(weights) + 0.5), tf.int32)
    rows = tf.broadcast_to(tf.range(size)[:, None], tf.shape(places))
    indices = tf.stack([rows[used], places[used]], axis=1)
    return tf.SparseTensor(tf.cast(indices, tf.int64), weights[used], tf.cast(tf.stack([size, before]), tf.int64))


def _filtered(photo, matrix):
    """Resamples the first axis: digit for digit Pillow's pixels."""
    shape = tf.shape(photo)
    sums = tf.sparse.sparse_dense_matmul(matrix, tf.cast(tf.reshape(photo, (shape[0], shape[1] * shape[2])), tf.int32))
    rounded = tf.bitwise.right_shift(sums + 2 ** (_PRECISION - 1), _PRECISION)
    return tf.reshape(tf.cast(tf.clip_by_value(rounded, 0, 255), tf.uint8), (-1, shape[1], shape[2]))


def _bicubic(x):
    """Keys' cubic with a = -0.5."""
    x = tf.abs(x)
    near = (1.5 * x - 2.5) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * -0.5
    return tf.where(x < 1, near, tf.where(x < 2, far, tf.zeros_like(x)))


def _bytes(content, position, count):
    """`count` bytes from `position`, as int32."""
    return tf.cast(tf.io.decode_raw(tf.strings.substr(content, position, count), tf.uint8), tf.int32)


def _little(values):
    """The number that bytes give, the lowest first."""
    return tf.reduce_sum(values * 256 ** tf.range(tf.shape(values, values.dtype)[-1], dtype=values.dtype), axis=-1)


def _big(values):
    return _little(tf.reverse(values, [-1]))
