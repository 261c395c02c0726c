// How many SMS a text takes: as plugins/mailing/segments.py has it, with its alphabets.

export function measure(text, basic, extension) {
    const characters = [...text];
    const isGsm = characters.every(function (each) { return basic.includes(each) || extension.includes(each); });
    const alphabet = isGsm ? {name: "GSM-7", single: 160, each: 153} : {name: "UCS-2", single: 70, each: 67};
    const widths = characters.map(function (each) { return isGsm ? (extension.includes(each) ? 2 : 1) : each.length; });
    const units = widths.reduce(function (sum, width) { return sum + width; }, 0);
    if (units <= alphabet.single) {
        return {name: alphabet.name, characters: characters.length, segments: Math.min(units, 1), left: alphabet.single - units};
    }
    let segments = 1, used = 0;
    widths.forEach(function (width) {
        if (used + width > alphabet.each) {
            segments += 1;
            used = 0;
        }
        used += width;
    });
    return {name: alphabet.name, characters: characters.length, segments, left: alphabet.each - used};
}
