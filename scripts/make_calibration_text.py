#!/usr/bin/env python3
"""Makes ggufkit's own calibration text, src/calibrate/builtin.txt.

    make_calibration_text.py            writes it
    make_calibration_text.py --check    exits with 1 if it is not what this script makes

The text is to make a language model do a bit of everything: prose, talk, instructions, code, tables, numbers, formulas,
letters, logs, several languages and scripts. Half of it are the passages of calibration_passages.txt beside this file,
which were written for it or are parts of this project at one time; the rest comes from the grammars below. Pieces follow
one another in an order that the seed decides, so that a beginning of the text is as mixed as the whole. Python's own
random numbers may change with its version, so they are not used.
"""

import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
PASSAGES = HERE / "calibration_passages.txt"
OUT = HERE.parent / "src" / "calibrate" / "builtin.txt"
SEED = 20
BYTES = 80_000  # of what the grammars make


class Random:
    """The upper bits of a linear congruential generator."""

    def __init__(self, seed):
        self.state = seed
        self.below(2)

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) % 2**64
        return (self.state >> 33) % n

    def between(self, low, high):
        return low + self.below(high - low + 1)

    def of(self, items):
        return items[self.below(len(items))]

    def some(self, items, n):
        """So many different ones."""
        items = list(items)
        return [items.pop(self.below(len(items))) for _ in range(n)]

    def shuffled(self, items):
        return self.some(items, len(items))


FIRST = """Anna Ben Clara David Elena Farid Grace Hugo Ines Jonas Keiko Liam Maya Nils Olga Priya Quentin Rosa Samuel Tara
Umar Vera Wanda Yusuf Zoe""".split()
LAST = """Abbott Bianchi Costa Dubois Evans Fischer Garcia Hansen Ivanova Jansen Kowalski Lindqvist Moreau Novak Okafor
Patel Rossi Sato Thompson Umarov Vogel Wright Yilmaz Zhang""".split()
TOWNS = """Alderbrook Brannford Castle-Hill Dunmere Eastwick Fallow Greystone Harrowgate Inverlay Kingsport Lowmoor
Marlstead Northam Oakhampton Pennard Rookhope Stanbridge Thornby Ullesford Westerham""".split()
THINGS = """lamp kettle ladder violin suitcase clock camera umbrella basket telescope bicycle notebook anchor mirror pillow
compass lantern typewriter blanket hammer map ticket parcel radio""".split()
PLACES = ["in the cellar", "behind the station", "under the stairs", "at the end of the pier", "in the old mill",
          "on the roof", "beside the canal", "in the museum", "between two shelves", "at the edge of the forest"]
WEATHER = ["It had rained since the morning", "The first snow lay on the roofs", "A warm wind came from the south",
           "Fog hung over the river", "The sky was as clear as glass", "Thunder rolled behind the hills"]
TRADES = ["baker", "teacher", "surgeon", "carpenter", "pilot", "librarian", "farmer", "electrician", "translator",
          "fisherman", "journalist", "gardener", "watchmaker", "nurse", "engineer"]
FOODS = ["rice", "lentils", "tomatoes", "goat's cheese", "smoked fish", "honey", "potatoes", "walnuts", "olive oil",
         "black tea", "oats", "plums", "mushrooms", "red cabbage", "eggs"]
ADJECTIVES = ["heavy", "green", "broken", "tiny", "borrowed", "ancient", "shiny", "useless", "famous", "wooden"]
FEELINGS = ["relieved", "curious", "tired", "proud", "suspicious", "delighted", "embarrassed", "calm"]
MONTHS = """January February March April May June July August September October November December""".split()
UNITS = [("km", "miles", 0.621371), ("kg", "pounds", 2.204623), ("litres", "gallons", 0.264172), ("m", "feet", 3.28084)]


def person(r):
    return f"{r.of(FIRST)} {r.of(LAST)}"


def date(r):
    return r.of([f"{r.between(1, 28)} {r.of(MONTHS)} {r.between(1850, 2030)}",
                 f"{r.between(1950, 2030)}-{r.between(1, 12):02}-{r.between(1, 28):02}",
                 f"{r.of(MONTHS)} {r.between(1, 28)}, {r.between(1900, 2030)}"])


def article(noun):
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def story(r):
    """Somebody looks for something, and the text remembers what."""
    a, b = r.some(FIRST, 2)
    thing, wrong = r.some(THINGS, 2)
    town, place, other = r.of(TOWNS), *r.some(PLACES, 2)
    adjective, trade = r.of(ADJECTIVES), r.of(TRADES)
    lines = [
        f"{r.of(WEATHER)} when {a} came back to {town}. For {r.between(2, 30)} years nobody had seen the {trade}'s "
        f"{adjective} {thing}, and most people had forgotten that there had ever been one.",
        r.of([f'"I am looking for {article(thing)}," {a} said to the man at the counter.',
              f"{a} knocked three times. {b} opened the door, {r.of(FEELINGS)} and not quite awake."]),
        f'"Have you tried {place}?" asked {b}. "My aunt used to keep such things there."',
        f"So they went to look {place}. They found {article(r.of(ADJECTIVES))} {wrong}, a bag of {r.of(FOODS)} and a letter "
        f"dated {date(r)}, but no {thing}.",
        r.of([f"{b} read the letter aloud. It said that the {thing} had been sold for {r.between(2, 90)} crowns and "
              f"bought back the same week, and that it was now {other}.",
              f"On the back of the letter somebody had drawn a map. A small cross marked a spot {other}."]),
        f"When they got there it was nearly dark. And there it was: the {thing}, exactly as {a} remembered it, only "
        f'smaller. "{r.of(["Is that all?", "At last!", "Then the story was true.", "Careful, it bites."])}" said {b}.',
        f"{a} felt {r.of(FEELINGS)}, and put the {thing} into the bag with the {r.of(FOODS)}. The {wrong} they left "
        "where it was.",
    ]
    return "\n\n".join(lines) if r.below(2) else " ".join(lines)


def entry(r):
    """A town, as an encyclopaedia has it."""
    town, other, river = *r.some(TOWNS, 2), r.of(["Arne", "Lorn", "Tavy", "Wend", "Esker"])
    year, people = r.between(900, 1500), r.between(2, 400) * 1000 + r.between(0, 999)
    return (
        f"{town} is a {r.of(['market town', 'port', 'city', 'spa town', 'mining town'])} on the {river}, {r.between(5, 90)} "
        f"kilometres {r.of(['north', 'south', 'east', 'west'])} of {other}. At the last census it had {people:,} inhabitants. "
        f"It is first mentioned in {year}, as the property of {r.of(['a monastery', 'the crown', 'a bishop', 'a guild'])}; "
        f"in {year + r.between(50, 300)} it was {r.of(['destroyed by fire', 'granted a market', 'walled', 'flooded'])}. "
        f"The town grew quickly after {r.of(['the railway', 'a canal', 'the first paper mill', 'a sugar refinery'])} was "
        f"opened in {r.between(1790, 1910)}. Today the largest employers are a hospital and a maker of {r.of(THINGS)}s. "
        f"Its best-known native is the {r.of(TRADES)} {person(r)} ({r.between(1700, 1800)}–{r.between(1801, 1890)}). "
        f"The mean temperature is {r.between(-5, 4)}.{r.below(10)} °C in January and {r.between(15, 26)}.{r.below(10)} °C in "
        f"July; {r.between(400, 1400)} mm of rain fall in a year."
    )


def arithmetic(r):
    lines = []
    for _ in range(r.between(8, 16)):
        a, b = r.between(2, 999), r.between(2, 99)
        lines.append(r.of([f"{a} + {b} = {a + b}", f"{a} - {b} = {a - b}", f"{a} × {b} = {a * b}", f"{a} * {b} = {a * b}",
                           f"{a * b} / {b} = {a}", f"{a} mod {b} = {a % b}", f"{b}^2 = {b * b}",
                           f"{a}/{1000} = {a / 1000:.3f}", f"{a} in binary is {a:b}, in hexadecimal 0x{a:x}"]))
    return "\n".join(lines)


def problem(r):
    name, food = r.of(FIRST), r.of(FOODS)
    price, n, note = r.between(2, 19), r.between(3, 12), 200 + 50 * r.below(3)
    total = price * n
    return (f"Question: {name} buys {n} bags of {food} at {price} each and pays with {note}. How much change is there?\n"
            f"Answer: Let us go step by step. {n} bags at {price} each cost {n} × {price} = {total}. "
            + (f"From {note} there remain {note} − {total} = {note - total}. The answer is {note - total}."
               if total <= note else f"That is more than {note}; {name} is short of {total - note}."))


def conversion(r):
    rows = []
    for _ in range(r.between(4, 8)):
        a, b, factor = r.of(UNITS)
        x = r.between(1, 500)
        rows.append(f"{x} {a} = {x * factor:.2f} {b}")
    return "Conversions\n" + "\n".join(rows)


def people(r):
    fields = ["name", "town", "trade", "born", "salary"]
    rows = [[person(r), r.of(TOWNS), r.of(TRADES), str(r.between(1945, 2005)),
             f"{r.between(18, 99)}{r.between(0, 999):03}"]
            for _ in range(r.between(4, 9))]
    return fields, rows


def markdown(r):
    fields, rows = people(r)
    lines = [fields, ["---"] * len(fields), *rows]
    return f"## Staff of {r.of(TOWNS)}\n\n" + "\n".join("| " + " | ".join(line) + " |" for line in lines)


def csv(r):
    fields, rows = people(r)
    separator = r.of([",", ";", "\t"])
    return "\n".join(separator.join(line) for line in [fields, *rows])


def record(r):
    return {"id": r.between(1000, 99999), "name": person(r), "active": r.below(2) == 1,
            "tags": r.some(THINGS, r.between(0, 3)), "address": {"town": r.of(TOWNS), "zip": f"{r.between(10000, 99999)}"},
            "score": r.between(0, 1000) / 8, "manager": None if r.below(2) else r.of(FIRST)}


def jsons(r):
    if r.below(3) == 0:
        return "\n".join(json.dumps(record(r)) for _ in range(r.between(2, 4)))
    return json.dumps({"page": r.between(1, 9), "items": [record(r) for _ in range(r.between(1, 3))]}, indent=r.of([2, 4]))


def settings(r):
    names = r.some(["timeout", "retries", "workers", "port", "cache_size", "level", "path", "verbose"], 5)
    values = {"level": "debug info warning".split(), "path": ["/var/lib/app", "C:\\Data\\app", "./data"],
              "verbose": ["true", "false"]}
    section = r.of(THINGS)
    pairs = [(n, r.of(values[n]) if n in values else str(r.between(1, 9000))) for n in names]
    if r.below(2):
        return f"[{section}]\n" + "\n".join(f"{n} = {v}" for n, v in pairs)
    return (f'<?xml version="1.0" encoding="UTF-8"?>\n<{section}>\n'
            + "\n".join(f'  <option name="{n}">{v}</option>' for n, v in pairs) + f"\n</{section}>")


def python(r):
    thing, field, other = r.of(THINGS), *r.some(["weight", "price", "length", "age", "count"], 2)
    return f'''from dataclasses import dataclass


@dataclass(frozen=True)
class {thing.capitalize()}:
    """What is known of {article(thing)}."""

    name: str
    {field}: float
    {other}: int = {r.between(0, 9)}


def heaviest(items: list[{thing.capitalize()}], least: float = {r.between(1, 99)}.0) -> {thing.capitalize()} | None:
    """The one with the largest {field}, if any is above `least`."""
    candidates = [item for item in items if item.{field} > least]
    if not candidates:
        return None
    return max(candidates, key=lambda item: (item.{field}, -item.{other}))


assert heaviest([]) is None
assert heaviest([{thing.capitalize()}("a", {r.between(100, 200)}), {thing.capitalize()}("b", {r.between(201, 300)})]).name == "b"'''


def rust(r):
    thing, n = r.of(THINGS), r.between(2, 12)
    kind = thing.capitalize()
    return f'''/// A box of at most {n} {thing}s.
#[derive(Debug, Default)]
pub struct {kind}s {{
    items: Vec<{kind}>,
}}

impl {kind}s {{
    const MOST: usize = {n};

    /// Puts one in, or gives it back if there is no room.
    pub fn put(&mut self, item: {kind}) -> Result<(), {kind}> {{
        if self.items.len() == Self::MOST {{
            return Err(item);
        }}
        self.items.push(item);
        Ok(())
    }}

    /// The sum of all weights.
    pub fn weight(&self) -> u64 {{
        self.items.iter().map(|item| u64::from(item.weight)).sum()
    }}
}}'''


def chat(r):
    a, b = r.some(FIRST, 2)
    hour, thing, town = r.between(1, 9), r.of(THINGS), r.of(TOWNS)
    lines = [
        (a, r.of(["hey, are you there?", "Hi! Got a minute?", "good morning :)"])),
        (b, r.of(["yep", "Sure, what's up?", "Just got in. What is it?"])),
        (a, f"did you take the {thing}? I can't find it anywhere"),
        (b, r.of([f"no, {r.of(FIRST)} borrowed it last week", f"it's {r.of(PLACES)}, where it always is"])),
        (a, r.of(["ugh. ok", "Oh right, I forgot!", "are you sure??"])),
        (b, f"btw the train to {town} leaves at {hour}:{r.between(10, 59)}, not at {hour + 1}:00"),
        (a, r.of(["thanks!!", "lol good to know", "Then I have to run. See you there?"])),
        (b, r.of(["np", "see you", "Yes, platform " + str(r.between(1, 14)) + "."])),
    ]
    form = r.of(["{}: {}", "<{}> {}", "[" + f"{hour:02}:" + str(r.between(10, 59)) + "] {}: {}"])
    return "\n".join(form.format(*line) for line in lines)


def letter(r):
    return (f"{r.of(TOWNS)}, {date(r)}\n\nDear {r.of(['Mr', 'Ms', 'Dr'])} {r.of(LAST)},\n\n"
            f"thank you for your {r.of(['letter', 'call', 'application', 'patience'])}. We have looked into the matter of the "
            f"{r.of(ADJECTIVES)} {r.of(THINGS)} and can tell you that "
            f"{r.of(['it will be replaced', 'the amount will be refunded', 'we need two weeks more'])}. "
            f"Please quote the number {r.between(100, 999)}-{r.between(1000, 9999)} when you write to us.\n\n"
            f"Yours sincerely,\n{person(r)}\n{r.of(TRADES).capitalize()}")


def todo(r):
    marks = r.of([["- "] * 9, [f"{i}. " for i in range(1, 10)], ["- [ ] ", "- [x] "] * 5, ["* "] * 9])
    jobs = [f"buy {r.of(FOODS)} and {r.of(FOODS)}", f"call {person(r)} (0{r.between(100, 999)} {r.between(10000, 99999)})",
            f"repair the {r.of(THINGS)}", f"return the {r.of(ADJECTIVES)} {r.of(THINGS)} to {r.of(FIRST)}",
            f"read pages {r.between(1, 90)}–{r.between(91, 300)}", f"write to the {r.of(TRADES)} in {r.of(TOWNS)}",
            f"pay {r.between(5, 900)}.{r.between(10, 99)} before {date(r)}"]
    return "To do\n" + "\n".join(m + j for m, j in zip(marks, r.some(jobs, r.between(4, 7))))


def instruction(r):
    items = r.some(FOODS, 4)
    thing, word = r.of(THINGS), r.of(ADJECTIVES)
    pairs = [
        (f"Sort these words alphabetically: {', '.join(items)}", ", ".join(sorted(items))),
        (f"Which of these is not food? {items[0]}, {items[1]}, {thing}, {items[2]}", f"The {thing} is not food."),
        (f"How many letters has the word \"{thing}\"?", f"\"{thing}\" has {len(thing)} letters: {'-'.join(thing)}."),
        (f"Write the word {word} backwards.", word[::-1]),
        (f"Give me the list as JSON: {', '.join(items)}", json.dumps(items)),
        (f"Put into the plural: one {thing}", f"two {thing}s"),
        (f"Is {len(items) + len(thing)} even?", "Yes." if (len(items) + len(thing)) % 2 == 0 else "No, it is odd."),
    ]
    form = r.of(["### Instruction:\n{}\n\n### Response:\n{}", "User: {}\nAssistant: {}", "Q: {}\nA: {}"])
    return "\n\n".join(form.format(*pair) for pair in r.some(pairs, r.between(2, 4)))


TONGUES = {
    "de": (["Der Lehrer", "Die Ärztin", "Mein Nachbar", "Ihre Schwester", "Das Kind"],
           ["sucht seit Stunden", "verkauft am Samstag", "vergisst immer wieder", "repariert heute"],
           ["den alten Koffer", "eine grüne Lampe", "das Fahrrad", "die Schlüssel"],
           ["hinter dem Bahnhof", "trotz des Regens", "weil morgen Besuch kommt", "ohne ein Wort zu sagen"]),
    "fr": (["Le boulanger", "Ma voisine", "Son frère", "L'ingénieure", "Notre professeur"],
           ["cherche depuis hier", "a enfin trouvé", "voudrait acheter", "oublie toujours"],
           ["la vieille horloge", "un parapluie noir", "les billets de train", "cette lettre"],
           ["près de la gare", "malgré la pluie", "avant que la nuit tombe", "sans rien dire"]),
    "es": (["El panadero", "Mi vecina", "Su hermano", "La profesora", "Aquel niño"],
           ["busca desde ayer", "ha encontrado por fin", "quiere vender", "siempre olvida"],
           ["el reloj antiguo", "una maleta verde", "los billetes", "la bicicleta de su abuelo"],
           ["detrás de la estación", "a pesar de la lluvia", "antes de que anochezca", "sin decir nada"]),
    "it": (["Il fornaio", "La mia vicina", "Suo fratello", "L'architetto", "La maestra"],
           ["cerca da ieri", "ha finalmente trovato", "vorrebbe vendere", "dimentica sempre"],
           ["il vecchio orologio", "una valigia verde", "i biglietti del treno", "la bicicletta del nonno"],
           ["dietro la stazione", "nonostante la pioggia", "prima che faccia buio", "senza dire niente"]),
}


def foreign(r):
    parts = TONGUES[r.of(sorted(TONGUES))]
    return " ".join(" ".join(r.of(part) for part in parts) + r.of([".", ".", "!"]) for _ in range(r.between(4, 8)))


def statistics(r):
    """Numbers that are worked out in words."""
    x = sorted(r.between(1, 400) for _ in range(r.between(5, 9)))
    mean, middle = sum(x) / len(x), x[len(x) // 2] if len(x) % 2 else (x[len(x) // 2 - 1] + x[len(x) // 2]) / 2
    return (f"The measurements, in order, are {', '.join(map(str, x))}. Their sum is {sum(x)} and there are {len(x)} "
            f"of them, so the mean is {mean:.2f}. The median is {middle:g}, the range {x[-1] - x[0]}. "
            f"In scientific notation the largest is {x[-1]:.2e}.")


# Each kind, and how often it comes in a round.
KINDS = [(story, 3), (entry, 3), (arithmetic, 1), (problem, 2), (conversion, 1), (markdown, 1), (csv, 1), (jsons, 2),
         (settings, 1), (python, 1), (rust, 1), (chat, 2), (letter, 1), (todo, 1), (instruction, 2), (foreign, 3),
         (statistics, 1)]


def made():
    r = Random(SEED)
    pieces, size = [], 0
    while size < BYTES:
        for kind in r.shuffled([kind for kind, times in KINDS for _ in range(times)]):
            pieces.append(kind(r))
            size += len(pieces[-1].encode())
    passages = r.shuffled(PASSAGES.read_text("utf-8").removesuffix("\n").split("\n%%%%\n"))
    # Passages are longer: spread evenly among the others.
    share, due, out = len(passages) / len(pieces), 0.0, []
    for piece in pieces:
        out.append(piece)
        due += share
        while due >= 1 and passages:
            out.append(passages.pop())
            due -= 1
    return "\n\n".join(out + passages) + "\n"


def main():
    text = made().encode()
    if "--check" not in sys.argv[1:]:
        OUT.write_bytes(text)
        print(f"{OUT.name}: {len(text)} bytes")
    elif not OUT.is_file() or OUT.read_bytes() != text:
        sys.exit(f"{OUT} is not what this script makes")


if __name__ == "__main__":
    main()
