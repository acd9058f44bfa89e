#!/usr/bin/env python3
"""Makes the demo model: its text, its tokenizer and its weights, from nothing but this file.

    python3 scripts/make_demo_model.py                     train, and write demo/ (about a quarter of an hour)
    python3 scripts/make_demo_model.py --out DIR --steps 200
    python3 scripts/make_demo_model.py --stories 3         print a few stories and stop
    python3 scripts/make_demo_model.py --check demo        compare committed files with what this script makes

The text is small stories, written by the grammar below: people with names and pronouns, things that are lent,
lost, mended and traded, sums, journeys there and back, and facts about invented towns. A story's later sentences
depend on its earlier ones (who has the red kite, how many plums are left, which way leads home), and the facts
are the same in every story, so a model has something to remember and something to work out. That is what makes
it worth quantizing: a model that knows nothing loses nothing.

DIR gets
    model/           a Llama model as Hugging Face repositories have them: config.json, model.safetensors (bfloat16),
                     tokenizer.model (SentencePiece BPE with byte fallback), and the small files around them
    heldout.txt      stories the model was not trained on, to measure perplexity
    calibration.txt  stories from the same grammar, neither trained on nor held out, for importance matrices

Training needs PyTorch, NumPy, SentencePiece and safetensors. --check needs Python alone: the texts are made again and
compared byte for byte, and the sizes in config.json, model.safetensors and tokenizer.model with each
other. The weights cannot be compared that way. Everything is seeded, but the order in which sums are added up differs
between processors, thread counts and library versions, and so do the last bits of a trained weight.
"""
import argparse
import json
import math
import os
import pathlib
import random
import struct
import sys
import time

# ---------------------------------------------------------------------------------------------------------------
# Sizes

SEED = 20
VOCAB = 1024
CONTEXT = 256
# The part of the training in which a quarter of the rows say their first half twice.
ECHO_UNTIL = 0.6
CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "attention_bias": False,
    "attention_dropout": 0.0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "head_dim": 32,
    "hidden_act": "silu",
    "hidden_size": 256,
    "initializer_range": 0.02,
    "intermediate_size": 768,
    "max_position_embeddings": CONTEXT,
    "mlp_bias": False,
    "model_type": "llama",
    "num_attention_heads": 8,
    "num_hidden_layers": 4,
    "num_key_value_heads": 4,
    "rms_norm_eps": 1e-05,
    "rope_theta": 10000.0,
    "tie_word_embeddings": False,
    "torch_dtype": "bfloat16",
    "use_cache": True,
    "vocab_size": VOCAB,
}
HELDOUT_BYTES, CALIBRATION_BYTES = 80_000, 60_000
TRAINING_STORIES = 48_000
TOKENIZER_STORIES = 6_000

# ---------------------------------------------------------------------------------------------------------------
# What the stories are about

GIRLS = """Mira Anna Tilda Rosa Ines Greta Lena Nora Petra Wren Ada Clara Ivy Hanna Opal Dora Freya Juno Elsa Maud
Pia Runa Sana Vera Yara Zoe Bree Marta""".split()
BOYS = """Tom Oren Felix Hugo Sam Jonas Karl Leo Max Nils Otto Paul Ravi Theo Ulf Viktor Will Arlo Ben Cato
Dan Emil Finn Gus Henk Ivan Jack Kofi""".split()

# Town, kind of place, river, what it is known for, the next town, miles to it.
TOWNS = [
    ("Harrow", "village", "Tamm", "honey", "Selby", 4),
    ("Selby", "town", "Tamm", "glass", "Dunmoor", 7),
    ("Dunmoor", "village", "Wick", "wool", "Pell", 3),
    ("Pell", "town", "Wick", "clocks", "Marrow", 12),
    ("Marrow", "village", "Esk", "cheese", "Tolland", 6),
    ("Tolland", "city", "Esk", "bells", "Ashby", 9),
    ("Ashby", "town", "Lorn", "paper", "Quill", 5),
    ("Quill", "village", "Lorn", "ink", "Brask", 11),
    ("Brask", "city", "Ober", "ships", "Fenn", 8),
    ("Fenn", "village", "Ober", "eels", "Corly", 2),
    ("Corly", "town", "Ober", "salt", "Winter Hill", 14),
    ("Winter Hill", "village", "Sill", "sheep", "Kestle", 10),
    ("Kestle", "town", "Sill", "knives", "Garrick", 6),
    ("Garrick", "city", "Sill", "songs", "Low Barton", 13),
    ("Low Barton", "village", "Yarl", "plums", "Mossgate", 3),
    ("Mossgate", "town", "Yarl", "tea", "Harrow", 15),
]

# Job, where it is done, tool, what was done there, what is done there.
JOBS = [
    ("baker", "bakery", "long spoon", "baked bread", "bakes bread"),
    ("smith", "forge", "heavy hammer", "shaped iron", "shapes iron"),
    ("weaver", "weaving room", "loom", "wove cloth", "weaves cloth"),
    ("tailor", "shop by the gate", "needle", "sewed coats", "sews coats"),
    ("carpenter", "yard", "saw", "cut boards", "cuts boards"),
    ("miller", "mill", "millstone", "ground wheat", "grinds wheat"),
    ("fisher", "harbour", "net", "caught herring", "catches herring"),
    ("teacher", "school", "piece of chalk", "taught children", "teaches children"),
    ("doctor", "white house", "glass bottle", "healed the sick", "heals the sick"),
    ("painter", "attic", "brush", "painted doors", "paints doors"),
    ("potter", "kiln", "wheel", "made pots", "makes pots"),
    ("gardener", "orchard", "spade", "grew pears", "grows pears"),
    ("shepherd", "high meadow", "crook", "kept sheep", "keeps sheep"),
    ("clockmaker", "tower", "tiny file", "mended clocks", "mends clocks"),
    ("cook", "inn", "copper pan", "fried fish", "fries fish"),
    ("librarian", "library", "ladder", "sorted books", "sorts books"),
]

# Thing, plural, who makes and mends it, what one does with it (base, past, gerund), where.
THINGS = [
    ("kite", "kites", "tailor", "fly", "flew", "flying", "on the hill"),
    ("boat", "boats", "carpenter", "sail", "sailed", "sailing", "on the pond"),
    ("drum", "drums", "carpenter", "beat", "beat", "beating", "in the square"),
    ("lantern", "lanterns", "smith", "light", "lit", "lighting", "after sunset"),
    ("blanket", "blankets", "weaver", "fold", "folded", "folding", "by the bed"),
    ("scarf", "scarves", "weaver", "wear", "wore", "wearing", "in the snow"),
    ("hat", "hats", "tailor", "wear", "wore", "wearing", "at the fair"),
    ("coat", "coats", "tailor", "wear", "wore", "wearing", "in the rain"),
    ("bell", "bells", "smith", "ring", "rang", "ringing", "at noon"),
    ("key", "keys", "smith", "turn", "turned", "turning", "in the lock"),
    ("sword", "swords", "smith", "swing", "swung", "swinging", "in the yard"),
    ("cup", "cups", "potter", "fill", "filled", "filling", "at the well"),
    ("bowl", "bowls", "potter", "wash", "washed", "washing", "in the kitchen"),
    ("jug", "jugs", "potter", "carry", "carried", "carrying", "up the stairs"),
    ("clock", "clocks", "clockmaker", "wind", "wound", "winding", "in the hall"),
    ("watch", "watches", "clockmaker", "set", "set", "setting", "by the church bell"),
    ("book", "books", "librarian", "read", "read", "reading", "under the lamp"),
    ("map", "maps", "librarian", "study", "studied", "studying", "at the table"),
    ("flute", "flutes", "carpenter", "play", "played", "playing", "by the fire"),
    ("fiddle", "fiddles", "carpenter", "play", "played", "playing", "at a wedding"),
    ("sled", "sleds", "carpenter", "pull", "pulled", "pulling", "over the ice"),
    ("ball", "balls", "tailor", "kick", "kicked", "kicking", "against the wall"),
    ("mask", "masks", "painter", "wear", "wore", "wearing", "at the feast"),
    ("picture", "pictures", "painter", "hang", "hung", "hanging", "above the door"),
    ("ring", "rings", "smith", "polish", "polished", "polishing", "with a cloth"),
    ("umbrella", "umbrellas", "tailor", "open", "opened", "opening", "under the clouds"),
]
COLOURS = "red blue green yellow white black brown orange purple grey".split()
KINDS = "old new small big heavy wooden painted broad narrow shiny".split()

# Animal, plural, home, food, the sound it makes (base, past).
ANIMALS = [
    ("owl", "owls", "in hollow trees", "mice", "hoot", "hooted"),
    ("otter", "otters", "by the river", "fish", "whistle", "whistled"),
    ("fox", "foxes", "under the roots", "rabbits", "bark", "barked"),
    ("goose", "geese", "on the lake", "grass", "honk", "honked"),
    ("mouse", "mice", "behind the stove", "crumbs", "squeak", "squeaked"),
    ("wolf", "wolves", "in the mountains", "deer", "howl", "howled"),
    ("bear", "bears", "in caves", "berries", "growl", "growled"),
    ("bee", "bees", "in hives", "nectar", "buzz", "buzzed"),
    ("frog", "frogs", "in the marsh", "flies", "croak", "croaked"),
    ("crow", "crows", "on the church roof", "seeds", "caw", "cawed"),
    ("cat", "cats", "near the hearth", "cream", "purr", "purred"),
    ("donkey", "donkeys", "in the stable", "hay", "bray", "brayed"),
    ("goat", "goats", "on the cliffs", "thistles", "bleat", "bleated"),
    ("pig", "pigs", "in the sty", "turnips", "grunt", "grunted"),
    ("snake", "snakes", "among warm stones", "eggs", "hiss", "hissed"),
    ("hen", "hens", "in the coop", "corn", "cluck", "clucked"),
    ("squirrel", "squirrels", "in the oak", "nuts", "chatter", "chattered"),
    ("duck", "ducks", "in the reeds", "snails", "quack", "quacked"),
]

# Things to count: one, several, what they are kept in.
COUNTED = [
    ("apple", "apples", "basket"), ("plum", "plums", "basket"), ("egg", "eggs", "nest"), ("button", "buttons", "tin"),
    ("shell", "shells", "bucket"), ("candle", "candles", "drawer"), ("loaf", "loaves", "oven"),
    ("feather", "feathers", "pillow"), ("stone", "stones", "pocket"), ("letter", "letters", "bag"),
    ("cherry", "cherries", "bowl"), ("nail", "nails", "tin"), ("cake", "cakes", "oven"),
    ("ribbon", "ribbons", "drawer"),
    ("acorn", "acorns", "pocket"), ("potato", "potatoes", "sack"), ("carrot", "carrots", "sack"),
    ("pebble", "pebbles", "bucket"),
]
PLACES = """under the bridge|behind the mill|in the tall grass|beside the well|on the garden wall|inside the barn
near the stile|at the crossroads|below the waterfall|between two rocks|beneath the willow|among the ferns
in the empty cart|on the church steps|behind the curtain|under the bench""".replace("\n", "|").split("|")

# Legs of a journey, and the same leg on the way back.
LEGS = [
    ("over the bridge", "over the bridge"), ("up the hill", "down the hill"), ("down the lane", "up the lane"),
    ("through the forest", "through the forest"), ("past the mill", "past the mill"),
    ("along the river", "along the river"),
    ("across the field", "across the field"), ("around the pond", "around the pond"),
    ("into the valley", "out of the valley"),
    ("up the ladder", "down the ladder"), ("out of the gate", "in at the gate"), ("under the arch", "under the arch"),
]
OPPOSITES = """hot cold|tall short|early late|loud quiet|wet dry|full empty|strong weak|rich poor|near far|thick thin
clean dirty|brave afraid|happy sad|open shut|first last|young old|light dark|sweet sour|quick slow|rough smooth
always never|above below|summer winter|laugh cry|give take|remember forget
true false|asleep awake""".replace("\n", "|").split("|")
OPPOSITES = [tuple(pair.split()) for pair in OPPOSITES]

# Weather, what it did, what it leaves behind, what one wishes for.
WEATHER = [
    ("rain", "It rained all night", "the paths were muddy", "boots"),
    ("snow", "It snowed for two days", "the roofs were white", "mittens"),
    ("wind", "The wind blew hard", "branches lay on the road", "a thick cloak"),
    ("fog", "Fog came up from the water", "nobody could see the tower", "a bright lamp"),
    ("sun", "The sun shone for a week", "the grass was yellow", "cold water"),
    ("thunder", "Thunder rolled over the fields", "the dogs were hiding", "a dry roof"),
    ("frost", "Frost came before dawn", "the puddles were hard as glass", "hot soup"),
]
# Chores: base, past, gerund.
CHORES = [
    ("sweep the floor", "swept the floor", "sweeping the floor"), ("feed the hens", "fed the hens", "feeding the hens"),
    ("chop wood", "chopped wood", "chopping wood"), ("bring water", "brought water", "bringing water"),
    ("write a letter", "wrote a letter", "writing a letter"), ("build a fence", "built a fence", "building a fence"),
    ("draw a horse", "drew a horse", "drawing a horse"),
    ("sing to the baby", "sang to the baby", "singing to the baby"),
    ("dig a ditch", "dug a ditch", "digging a ditch"), ("swim in the lake", "swam in the lake", "swimming in the lake"),
    ("climb the oak", "climbed the oak", "climbing the oak"),
    ("paint the gate", "painted the gate", "painting the gate"),
    ("pick berries", "picked berries", "picking berries"), ("catch a fish", "caught a fish", "catching a fish"),
    ("buy flour", "bought flour", "buying flour"), ("teach a song", "taught a song", "teaching a song"),
]
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MORALS = {
    "lost": ["What is lost can be found if you ask.", "Look where the finder tells you."],
    "trade": ["A fair trade makes two people glad.", "Both friends went home richer."],
    "mend": ["A good tool and a good hand can mend almost anything.", "What is broken can be made whole."],
    "count": ["Counting twice is better than guessing once.", "Shared food tastes best."],
    "path": ["The way back is the way there, turned around.", "Whoever knows the way is never far from home."],
    "learn": ["There is always one more thing to learn.", "Ask, and you will know."],
    "promise": ["A promise is a promise.", "Whoever keeps a promise keeps a friend."],
    "give": ["It is good to have friends.", "Kind hands are never empty."],
}
UNITS = """zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
seventeen eighteen nineteen""".split()
TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def number(n):
    """n in words, up to ninety-nine."""
    if n < 20:
        return UNITS[n]
    return TENS[n // 10 - 2] + ("-" + UNITS[n % 10] if n % 10 else "")


def a(phrase):
    """The phrase with the article that fits it."""
    return ("an " if phrase[0] in "aeiou" else "a ") + phrase


def cap(text):
    return text[0].upper() + text[1:]


def listed(items):
    """a, b and c"""
    return items[0] if len(items) == 1 else ", ".join(items[:-1]) + " and " + items[-1]


class Random:
    """Choices from a seed, the same ones in every Python: random() is the only method whose results for a seed the
    documentation promises to keep."""

    def __init__(self, seed):
        self.random = random.Random(seed).random

    def below(self, n):
        return int(self.random() * n)

    def between(self, low, high):
        return low + self.below(high - low + 1)

    def pick(self, items):
        return items[self.below(len(items))]

    def some(self, items, count):
        """count different items, in random order."""
        pool, chosen = list(items), []
        for _ in range(count):
            chosen.append(pool.pop(self.below(len(pool))))
        return chosen

    def chance(self, p):
        return self.random() < p


class Person:
    def __init__(self, name):
        self.name = name
        if name in GIRLS:
            self.he, self.him, self.his, self.noun, self.sibling = "she", "her", "her", "girl", "sister"
        else:
            self.he, self.him, self.his, self.noun, self.sibling = "he", "him", "his", "boy", "brother"
        self.He = cap(self.he)

    def __str__(self):
        return self.name


class Thing:
    """A thing in a story. Its adjectives are chosen once, so that the red kite stays red."""

    def __init__(self, row, adjective):
        self.noun, self.plural, self.maker, self.use, self.used, self.using, self.where = row
        self.bare = adjective + " " + self.noun
        self.a, self.the = a(self.bare), "the " + self.bare
        self.owner = None


class Story:
    """One story: a cast, who owns what, and the sentences so far."""

    def __init__(self, rng):
        self.rng = rng
        self.out = []
        self.people = [Person(name) for name in rng.some(GIRLS + BOYS, 4)]
        rows = rng.some(THINGS, 4)
        # Colours may not repeat within a story; then a colour alone tells a thing.
        self.things = [Thing(row, adjective) for row, adjective in zip(rows, rng.some(COLOURS + KINDS, 4))]
        self.town = rng.pick(TOWNS)
        self.told = set()
        self.moral = "give"

    def say(self, *options):
        """Adds one of the sentences."""
        self.out.append(self.rng.pick(options))

    def tell(self):
        self.opening()
        for scene in self.rng.some(self.SCENES, self.rng.between(2, 4)):
            scene(self)
        self.ending()
        return " ".join(self.out)

    # Parts that scenes share

    def friend(self):
        """Someone else, introduced if new."""
        someone = self.rng.pick(self.people[1:])
        if someone.name not in self.told:
            self.told.add(someone.name)
            hero = self.people[0]
            self.say(
                f"{hero} had a friend named {someone}.",
                f"{hero} knew a {someone.noun} called {someone}.",
                f"{someone} was {hero}'s {someone.sibling}.",
                f"Next door lived a {someone.noun} named {someone}.",
            )
        return someone

    def thing_of(self, person):
        """Something the person owns, introduced if there is none yet."""
        owned = [t for t in self.things if t.owner is person]
        if owned:
            return self.rng.pick(owned)
        free = [t for t in self.things if t.owner is None]
        if not free:
            return None
        thing = free[0]
        thing.owner = person
        self.say(
            f"{person} had {thing.a}.",
            f"{person} owned {thing.a} and liked {thing.using} it {thing.where}.",
            f"The {thing.maker} had made {thing.a} for {person}.",
            f"On {person.his} birthday {person} got {thing.a}.",
        )
        return thing

    def asked_who_has(self, thing):
        """A question about the present owner, answered by somebody in the story."""
        asker = self.rng.pick([p for p in self.people if p is not thing.owner and p.name in self.told])
        self.say(
            f'"Who has {thing.the} now?" asked {asker}. "{thing.owner} has it," said the {thing.maker}.',
            f'"Where is {thing.the}?" asked {asker}. "It belongs to {thing.owner} now," said the {thing.maker}.',
            f"From then on {thing.the} belonged to {thing.owner}.",
            f"Now {thing.owner} could {thing.use} {thing.the} {thing.where}.",
        )

    # Beginning and end

    def opening(self):
        hero, (town, kind, river, known, near, miles) = self.people[0], self.town
        self.told.add(hero.name)
        self.say(
            f"In {town}, a {kind} on the river {river}, there lived a {hero.noun} named {hero}.",
            f"Once a {hero.noun} called {hero} lived in the {kind} of {town}, which is known for its {known}.",
            f"{hero} was a {hero.noun} from {town}, {number(miles)} miles from {near}.",
            f"Long ago, in the {kind} of {town} on the {river}, lived {hero}, a {hero.noun} who loved {known}.",
        )
        self.thing_of(hero)

    def ending(self):
        hero = self.people[0]
        owned = [t for t in self.things if t.owner]
        if len(owned) > 1 and self.rng.chance(0.7):
            parts = [f"{t.owner} had {t.the}" for t in owned]
            self.say(f"At the end of the day {listed(parts)}.", f"So in the end {listed(parts)}.")
        elif owned:
            t = owned[0]
            self.say(
                f"That night {t.owner} dreamed of {t.using} {t.the} {t.where}.",
                f"And {t.owner} still has {t.the} today.",
            )
        self.say(
            f"Then {hero} went home to {self.town[0]}, beside the {self.town[2]}.",
            f"{hero} was tired but happy, and {hero.he} slept until morning.",
            f"And that was {hero}'s day in {self.town[0]}.",
        )
        self.say(*MORALS[self.moral])

    # Scenes

    def gift(self):
        hero, friend = self.people[0], self.friend()
        thing = self.thing_of(hero)
        if not thing:
            return self.weather()
        self.say(
            f"One day {hero} gave {thing.the} to {friend}, because {friend.he} had always wanted {a(thing.noun)}.",
            f'"Would you like {thing.the}?" asked {hero}. '
            f'"Yes, please," said {friend}, and {hero} gave it to {friend.him}.',
            f"{friend} was sad, so {hero} handed {friend.him} {thing.the} as a present.",
        )
        thing.owner = friend
        self.say(
            f'"Thank you, {hero}," said {friend}. "I will {thing.use} it {thing.where}."',
            f"{friend} thanked {hero} and {thing.used} {thing.the} {thing.where}.",
            f'"I have never had such {a(thing.noun)}!" {friend} cried.',
        )
        self.moral = "give"
        self.asked_who_has(thing)

    def passing(self):
        """A thing goes from hand to hand."""
        thing = self.thing_of(self.people[0])
        if not thing:
            return self.weather()
        self.say(
            f"Everyone wanted to {thing.use} {thing.the}.",
            f"{cap(thing.the)} did not stay in one house for long.",
        )
        for _ in range(self.rng.between(2, 3)):
            giver = thing.owner
            taker = self.rng.pick([p for p in self.people if p is not giver])
            self.told.add(taker.name)
            self.say(
                f"{giver} lent it to {taker}.",
                f"{giver} passed it on to {taker}, who {thing.used} it {thing.where}.",
                f"Then {taker} borrowed it from {giver}.",
                f"{taker} got it from {giver} on {self.rng.pick(DAYS)}.",
            )
            thing.owner = taker
        self.asked_who_has(thing)

    def lost(self):
        hero = self.people[0]
        thing = self.thing_of(hero)
        if not thing:
            return self.weather()
        first, second, place = self.rng.some(PLACES, 3)
        animal, plural, home, food, sound, sounded = self.rng.pick(ANIMALS)
        self.say(
            f"One morning {thing.the} was gone, and {hero} did not know where.",
            f"But {hero} lost {thing.the} while {hero.he} was walking to {self.town[4]}.",
            f"In the evening {hero} could not find {thing.the} anywhere.",
        )
        self.say(
            f"{hero.He} looked {first}, but it was not there.",
            f"{hero.He} looked {first} and {second}, but there was nothing.",
            f"First {hero.he} searched {first}, then {second}, and {hero.he} found only dust.",
        )
        self.say(f"There {hero.he} met {a(animal)}.", f"{cap(a(animal))} {sounded} at {hero.him}.")
        self.say(
            f'"I saw your {thing.noun} {place}," said the {animal}.',
            f'"If you bring me {food}, I will tell you where your {thing.noun} is," said the {animal}. '
            f'{hero} brought {food}. "It is {place}," said the {animal}.',
            f'"Why are you crying?" asked the {animal}. '
            f'"I have lost my {thing.noun}," said {hero}. "Look {place}," said the {animal}.',
        )
        self.say(
            f"{hero} ran to look, and {thing.the} lay {place}.",
            f"{cap(place)} {hero.he} found {thing.the} again.",
            f"And there it was, {place}: {thing.the}!",
        )
        self.say(f'The {animal} {sounded} and went back to its home {home}.', f'"Thank you, {animal}," said {hero}.')
        self.moral = "lost"

    def mend(self):
        hero = self.people[0]
        thing = self.thing_of(hero)
        if not thing:
            return self.weather()
        job, shop, tool, did, does = next(row for row in JOBS if row[0] == thing.maker)
        coins, price = self.rng.between(6, 20), self.rng.between(2, 5)
        self.say(
            f"One day, when {hero} was {thing.using} {thing.the} {thing.where}, it came apart.",
            f"{cap(thing.the)} was so worn that it came apart.",
        )
        self.say(
            f"Only the {job} could help. {hero} carried it to the {shop}.",
            f"So {hero} took it to the {shop}, where the {job} {did}.",
            f'"Go to the {job}," said {hero.his} mother. "You will find help at the {shop}."',
        )
        self.say(
            f"The {job} took the {tool} and mended it.",
            f'"I need only my {tool}," said the {job}.',
            f"With the {tool} the {job} made {thing.the} whole again.",
        )
        self.say(
            f"{hero} had {number(coins)} coins and paid {number(price)}, so {number(coins - price)} were left.",
            f'"That will be {number(price)} coins," said the {job}. '
            f'{hero} had {number(coins)}, and went home with {number(coins - price)}.',
        )
        self.moral = "mend"

    def trade(self):
        hero, friend = self.people[0], self.friend()
        mine, yours = self.thing_of(hero), self.thing_of(friend)
        if not mine or not yours:
            return self.chores()
        self.say(
            f'"I will give you {mine.the} for {yours.the}," said {hero}. "Done!" said {friend}.',
            f"{hero} wanted {yours.the}, and {friend} wanted {mine.the}, so they traded.",
            f"{friend} offered {yours.the} for {mine.the}, and {hero} agreed.",
        )
        mine.owner, yours.owner = friend, hero
        self.say(
            f"Now {hero} had {yours.the} and {friend} had {mine.the}.",
            f"{friend} {mine.used} {mine.the} {mine.where}, and {hero} {yours.used} {yours.the} {yours.where}.",
            f"{hero} went to {yours.use} {yours.the} {yours.where}, "
            f"while {friend} went to {mine.use} {mine.the} {mine.where}.",
        )
        self.moral = "trade"

    def counting(self):
        hero, friend = self.people[0], self.friend()
        one, many, kept = self.rng.pick(COUNTED)
        have, more = self.rng.between(3, 12), self.rng.between(2, 9)
        few = lambda n: f"{number(n)} {one if n == 1 else many}"
        self.say(
            f"{hero} had {few(have)} in {hero.his} {kept}.",
            f"There were {few(have)} in {hero}'s {kept}.",
            f"{hero} counted the {many} in the {kept}: there were {number(have)}.",
        )
        self.say(
            f"{friend} brought {number(more)} more.",
            f"{friend} gave {hero.him} another {number(more)}.",
            f"Then {hero.he} found {number(more)} more beside the road.",
        )
        have += more
        self.say(
            f"Now {hero.he} had {few(have)}.",
            f"That made {few(have)}.",
            f'"Now there are {few(have)}," said {hero}.',
        )
        less = self.rng.between(1, have - 1)
        self.say(
            f"{hero} gave {number(less)} of them to {friend} and kept {number(have - less)}.",
            f"They used {number(less)}, and {number(have - less)} {'was' if have - less == 1 else 'were'} left.",
            f"When {friend} had taken {number(less)}, only {few(have - less)} remained in the {kept}.",
        )
        self.moral = "count"

    def journey(self):
        hero = self.people[0]
        town, _, _, _, near, miles = self.town
        near_known = next(row[3] for row in TOWNS if row[0] == near)
        legs = self.rng.some(LEGS, self.rng.between(3, 4))
        there, back = [leg[0] for leg in legs], [leg[1] for leg in reversed(legs)]
        self.say(
            f"{hero} had to go to {near} to buy {near_known}.",
            f'"Please bring {near_known} from {near}," said {hero.his} father. "It is {number(miles)} miles."',
            f"The road from {town} to {near} is {number(miles)} miles long.",
        )
        self.say(f"{hero} went {listed(there)}.", f"{hero} walked {listed(there)}, and there was {near}.")
        self.say(
            f"On the way home {hero.he} came {listed(back)}.",
            f"To come back, {hero.he} went {listed(back)}.",
            f'"How will you get home?" they asked. "{cap(listed(back))}," said {hero}.',
        )
        self.say(
            f"All in all {hero.he} had walked {number(2 * miles)} miles.",
            f"There and back it was {number(2 * miles)} miles.",
        )
        self.moral = "path"

    def lesson(self):
        hero = self.people[0]
        self.say(
            "At school the teacher asked about animals.",
            f"{hero}'s grandmother knew everything about animals.",
            f"{hero} had many questions that day.",
        )
        for animal, plural, home, food, sound, sounded in self.rng.some(ANIMALS, self.rng.between(2, 3)):
            # "hisses" and "buzzes" would need a rule of their own.
            regular = sound[-1] not in "sz"
            self.say(
                f'"Where do {plural} live?" "{cap(plural)} live {home}."',
                f'"What do {plural} eat?" "They eat {food}."',
                f'"What does {a(animal)} do?" "It eats {food} and {sound}s."'
                if regular
                else f'"What do {plural} do?" "They eat {food} and {sound}."',
                f'"Which animals live {home} and eat {food}?" "{cap(plural)} do," said {hero}.',
                f'"Who {sound}s?" "{cap(a(animal))} does," said {hero}.'
                if regular
                else f'"Who can {sound}?" "{cap(plural)} can," said {hero}.',
            )
        self.moral = "learn"

    def towns(self):
        hero = self.people[0]
        self.say(
            f"A traveller came to {self.town[0]} and told of other places.",
            f"{hero}'s aunt had seen the whole country.",
        )
        for town, kind, river, known, near, miles in self.rng.some(TOWNS, 2):
            self.say(
                f'"{town} is a {kind} on the {river}, and it is known for its {known}," '
                f'{self.rng.pick(["was what they said", "so they said"])}.',
                f'"From {town} to {near} it is {number(miles)} miles."',
                f'"If you want {known}, go to {town}."',
                f'"In {town} the river is called the {river}."',
            )
        self.moral = "learn"

    def work(self):
        hero = self.people[0]
        job, shop, tool, did, does = self.rng.pick(JOBS)
        self.say(
            f'"When I am grown," said {hero}, "I will be {a(job)}."',
            f"{hero}'s uncle was {a(job)}.",
            f"{hero} liked to visit the {job}.",
        )
        self.say(
            f'"What does {a(job)} do?" asked {hero.his} friends. "{cap(a(job))} {does} with a {tool}."',
            f"All day long the {job} {did} in the {shop}.",
            f"{cap(a(job))} {does}, and for that one needs a {tool}.",
            f"The {job} showed {hero.him} the {tool} and {did}.",
        )

    def ages(self):
        hero, friend = self.people[0], self.friend()
        age, gap = self.rng.between(6, 14), self.rng.between(1, 5)
        years = lambda n: f"{number(n)} year{'s' * (n > 1)}"
        self.say(
            f"{hero} was {number(age)}, and {friend} was {years(gap)} older, so {friend} was {number(age + gap)}.",
            f"{friend} was {number(age + gap)} years old. {hero} was {years(gap)} younger, which is {number(age)}.",
        )
        if self.rng.chance(0.6):
            self.say(
                f'"In ten years I will be {number(age + 10)}," said {hero}, '
                f'"and you will be {number(age + gap + 10)}."',
                f'"Last year I was {number(age - 1)}," said {hero}. '
                f'"And I was {number(age + gap - 1)}," said {friend}.',
            )

    def week(self):
        hero = self.people[0]
        start = self.rng.below(5)
        count = self.rng.between(2, 3)
        days, chores = DAYS[start:start + count], self.rng.some(CHORES, count)
        for i, (day, chore) in enumerate(zip(days, chores)):
            self.say(f"On {day} {hero.he if i else hero} {chore[1]}.", f"{day} came, and {hero} {chore[1]}.")
        asked = self.rng.below(count)
        self.say(
            f'"What did you do on {days[asked]}?" asked {hero.his} mother. "I {chores[asked][1]}," said {hero}.',
            f'"When did you {chores[asked][0]}?" asked {hero.his} father. "On {days[asked]}," said {hero}.',
            f"{hero} had liked {days[asked]} best, for {hero.he} enjoyed {chores[asked][2]}.",
        )

    def chores(self):
        """A promise, and its keeping."""
        hero, friend = self.people[0], self.friend()
        chore, other = self.rng.some(CHORES, 2)
        self.say(
            f'"Tomorrow I will {chore[0]}," said {hero}. "And I will {other[0]}," said {friend}.',
            f'{hero} promised to {chore[0]}, and {friend} promised to {other[0]}.',
        )
        self.say(
            f"The next day {hero} {chore[1]}, and {friend} {other[1]}.",
            f"While {friend} was {other[2]}, {hero} was {chore[2]}.",
            f"{friend} has {'already' if self.rng.chance(0.5) else 'just'} started {other[2]}, "
            f"and {hero} is {chore[2]} too.",
        )
        self.moral = "promise"

    def boxes(self):
        """Which box holds what: told once, asked in another order."""
        hero, friend = self.people[0], self.friend()
        colours, kept = self.rng.some(COLOURS, 3), self.rng.some(COUNTED, 3)
        held = [f"{many} in the {colour} box" for colour, (_, many, _) in zip(colours, kept)]
        self.say(f"{hero} had three boxes, with {listed(held)}.", f"There were {listed(held)}.")
        for i in self.rng.some(range(3), 2):
            self.say(
                f'"What is in the {colours[i]} box?" asked {friend}. "The {kept[i][1]}," said {hero}.',
                f'"Where are the {kept[i][1]}?" asked {friend}. "In the {colours[i]} box," said {hero}.',
                f"{friend} opened the {colours[i]} box and took {a(kept[i][0])}.",
            )

    def race(self):
        first, second, third = (p.name for p in self.rng.some(self.people[:3], 3))
        self.told.update((first, second, third))
        self.say(f"They held a race on the {self.town[2]}.", f"On {self.rng.pick(DAYS)} there was a race.")
        self.say(
            f"{first} was faster than {second}, and {second} was faster than {third}.",
            f"{second} was slower than {first} but faster than {third}.",
            f"{third} came in behind {second}, and {second} behind {first}.",
        )
        self.say(
            f"So {first} was first, {second} was second and {third} was third.",
            f"{first} won, and {third} was last.",
            f"The prize went to {first}.",
        )

    def opposites(self):
        hero, friend = self.people[0], self.friend()
        self.say(f"{hero} and {friend} played a game of opposites.", f'"Say the opposite!" cried {friend}.')
        for pair in self.rng.some(OPPOSITES, self.rng.between(2, 4)):
            one, two = pair if self.rng.chance(0.5) else pair[::-1]
            self.say(f'"{cap(one)}," said {friend}. "{cap(two)}," said {hero}.', f'"What is not {one}?" "{cap(two)}!"')

    def song(self):
        hero = self.people[0]
        words = [row[1] for row in self.rng.some(COUNTED + ANIMALS, self.rng.between(3, 4))]
        self.say(f'{hero} sang: "{cap(", ".join(words))}."', f'{hero} made a rhyme: "{cap(", ".join(words))}."')
        self.say(f'"{cap(", ".join(words))}," sang the echo.', f'Backwards it went: "{cap(", ".join(words[::-1]))}."')

    def weather(self):
        hero = self.people[0]
        _, event, after, wish = self.rng.pick(WEATHER)
        self.say(f"{event}, and in the morning {after}.", f"{event}. Soon {after}.")
        self.say(f'"I wish I had {wish}," said {hero}.', f"{hero} wished for {wish}.")

    def market(self):
        hero = self.people[0]
        (one, many, _), (other, others, _) = self.rng.some(COUNTED, 2)
        price, count, extra = self.rng.between(2, 4), self.rng.between(2, 5), self.rng.between(1, 9)
        coin = lambda n: f"{number(n)} coin{'s' * (n > 1)}"
        self.say(
            f"At the market {a(one)} cost {coin(price)} and {a(other)} cost {coin(extra)}.",
            f'"{cap(a(one))} costs {coin(price)}, and {a(other)} costs {coin(extra)}," said the seller.',
        )
        self.say(
            f"{hero} bought {number(count)} {many} for {coin(price * count)}.",
            f'{hero} wanted {number(count)} {many}. "That is {coin(price * count)}," said the seller.',
            f"{hero} bought {a(one)} and {a(other)} and paid {coin(price + extra)}.",
        )

    SCENES = [gift, passing, lost, mend, trade, counting, journey, lesson, towns, work, ages, week, chores, boxes,
              race, opposites, song, weather, market]


def stories(seed):
    """Stories without end."""
    rng = Random(seed)
    while True:
        yield Story(rng).tell()


def text_of(seed, size, but_not=()):
    """Stories, a blank line between them, up to about `size` bytes."""
    out, length = [], 0
    for story in stories(seed):
        if story in but_not:
            continue
        length += len(story) + 2
        if length > size:
            return out
        out.append(story)


def texts(seed):
    """The held-out and the calibration stories. Neither shares a story with the other."""
    heldout = text_of(seed * 1000 + 1, HELDOUT_BYTES)
    return heldout, text_of(seed * 1000 + 2, CALIBRATION_BYTES, set(heldout))


def joined(parts):
    return "\n\n".join(parts) + "\n"


# ---------------------------------------------------------------------------------------------------------------
# The tokenizer


def train_tokenizer(corpus):
    """A SentencePiece model in the manner of Llama's, as the bytes of tokenizer.model."""
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus),
        model_writer=model,
        model_type="bpe",
        vocab_size=VOCAB,
        byte_fallback=True,
        character_coverage=1.0,
        # Every character as it is: what is decoded must be what was encoded.
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=True,
        split_digits=True,
        unk_id=0,
        bos_id=1,
        eos_id=2,
        pad_id=-1,
        max_sentence_length=1 << 16,
        # One thread and no shuffling: the same pieces on every run.
        num_threads=1,
        shuffle_input_sentence=False,
        minloglevel=2,
    )
    return model.getvalue()


def tokenizer_files():
    """The JSON files beside tokenizer.model."""
    special = {
        name: {"content": content, "lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
        for name, content in (("bos_token", "<s>"), ("eos_token", "</s>"), ("unk_token", "<unk>"))
    }
    config = {
        "add_bos_token": True,
        "add_eos_token": False,
        "added_tokens_decoder": {
            str(i): dict(special[name], special=True) for i, name in enumerate(("unk_token", "bos_token", "eos_token"))
        },
        "bos_token": "<s>",
        "clean_up_tokenization_spaces": False,
        "eos_token": "</s>",
        "legacy": True,
        "model_max_length": CONTEXT,
        "pad_token": None,
        "sp_model_kwargs": {},
        "tokenizer_class": "LlamaTokenizer",
        "unk_token": "<unk>",
    }
    return {"tokenizer_config.json": config, "special_tokens_map.json": special}


# ---------------------------------------------------------------------------------------------------------------
# The model


def tensor_shapes(config):
    """The tensors of a Llama model under their Hugging Face names, in the order of the file."""
    hidden, inner, head = config["hidden_size"], config["intermediate_size"], config["head_dim"]
    q, kv = config["num_attention_heads"] * head, config["num_key_value_heads"] * head
    shapes = {"model.embed_tokens.weight": (config["vocab_size"], hidden)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        shapes[layer + "input_layernorm.weight"] = (hidden,)
        shapes[layer + "self_attn.q_proj.weight"] = (q, hidden)
        shapes[layer + "self_attn.k_proj.weight"] = (kv, hidden)
        shapes[layer + "self_attn.v_proj.weight"] = (kv, hidden)
        shapes[layer + "self_attn.o_proj.weight"] = (hidden, q)
        shapes[layer + "post_attention_layernorm.weight"] = (hidden,)
        shapes[layer + "mlp.gate_proj.weight"] = (inner, hidden)
        shapes[layer + "mlp.up_proj.weight"] = (inner, hidden)
        shapes[layer + "mlp.down_proj.weight"] = (hidden, inner)
    shapes["model.norm.weight"] = (hidden,)
    shapes["lm_head.weight"] = (config["vocab_size"], hidden)
    return shapes


def initial_weights(torch, config, generator):
    weights = {}
    for name, shape in tensor_shapes(config).items():
        if len(shape) == 1:
            weights[name] = torch.ones(shape)
            continue
        spread = config["initializer_range"]
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            # These add to the residual stream, two to a layer; the sum should start no wider than one of them.
            spread /= math.sqrt(2 * config["num_hidden_layers"])
        weights[name] = torch.randn(shape, generator=generator) * spread
    return weights


def rotary_tables(torch, config):
    """Cosines and sines of the rotary embedding, (positions, head_dim), in the order of Hugging Face's rotate_half."""
    head = config["head_dim"]
    frequencies = config["rope_theta"] ** (-torch.arange(0, head, 2).float() / head)
    angles = torch.outer(torch.arange(config["max_position_embeddings"]).float(), frequencies)
    angles = torch.cat((angles, angles), dim=-1)
    return angles.cos(), angles.sin()


def forward(torch, config, weights, tables, tokens):
    """Logits, (rows, positions, vocabulary)."""
    f = torch.nn.functional
    rows, length = tokens.shape
    heads, kv_heads, head = config["num_attention_heads"], config["num_key_value_heads"], config["head_dim"]
    cos, sin = (table[:length] for table in tables)

    def norm(x, name):
        return f.rms_norm(x, (config["hidden_size"],), weights[name], config["rms_norm_eps"])

    def split(x, count):
        return x.view(rows, length, count, head).transpose(1, 2)

    def rotate(x):
        first, second = x.chunk(2, dim=-1)
        return x * cos.to(x.dtype) + torch.cat((-second, first), dim=-1) * sin.to(x.dtype)

    x = f.embedding(tokens, weights["model.embed_tokens.weight"])
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}."
        y = norm(x, layer + "input_layernorm.weight")
        q = rotate(split(f.linear(y, weights[layer + "self_attn.q_proj.weight"]), heads))
        k = rotate(split(f.linear(y, weights[layer + "self_attn.k_proj.weight"]), kv_heads))
        v = split(f.linear(y, weights[layer + "self_attn.v_proj.weight"]), kv_heads)
        k, v = (t.repeat_interleave(heads // kv_heads, dim=1) for t in (k, v))
        y = f.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(rows, length, heads * head)
        x = x + f.linear(y, weights[layer + "self_attn.o_proj.weight"])
        y = norm(x, layer + "post_attention_layernorm.weight")
        gate, up = (f.linear(y, weights[layer + f"mlp.{name}_proj.weight"]) for name in ("gate", "up"))
        x = x + f.linear(f.silu(gate) * up, weights[layer + "mlp.down_proj.weight"])
    return f.linear(norm(x, "model.norm.weight"), weights["lm_head.weight"])


def faster_in_bfloat16(torch):
    """Whether this processor multiplies matrices faster in bfloat16. Those that cannot are several times slower."""
    seconds = {}
    for dtype in (torch.float32, torch.bfloat16):
        x, y = torch.ones(4096, 256, dtype=dtype), torch.ones(256, 768, dtype=dtype)
        times = []
        # The first products compile their kernels, and another program may take the processor for a moment.
        for _ in range(20):
            start = time.perf_counter()
            x @ y
            times.append(time.perf_counter() - start)
        seconds[dtype] = min(times)
    return seconds[torch.bfloat16] < 0.7 * seconds[torch.float32]


def training_rows(torch, tokenizer, corpus, generator):
    """Rows of CONTEXT + 1 tokens in random order, without end.

    Most rows are cut from the running text with the beginning-of-text token put over their first one, which is how
    perplexity tools cut a file. One in six holds whole stories, each between beginning and end of text, so that the
    model can also be prompted with a story's first words and knows when to stop."""
    bos, eos = tokenizer.bos_id(), tokenizer.eos_id()
    whole = len(corpus) // 6
    ids = []
    for story in tokenizer.encode(corpus[:whole]):
        ids += [bos] + story + [eos]
    count = len(ids) // CONTEXT - 1
    wholes = [torch.tensor(ids[i * CONTEXT:i * CONTEXT + CONTEXT + 1]) for i in range(count)]
    ids = []
    for i in range(whole, len(corpus), 100):
        ids += tokenizer.encode(joined(corpus[i:i + 100]) + "\n")
    count = len(ids) // CONTEXT - 1
    cuts = [torch.tensor([bos] + ids[i * CONTEXT + 1:i * CONTEXT + CONTEXT + 1]) for i in range(count)]
    rows = torch.stack(wholes + cuts)
    print(f"{len(rows)} rows, {rows.numel()} tokens", flush=True)
    while True:
        yield from rows[torch.randperm(len(rows), generator=generator)]


def heldout_loss(torch, config, weights, tables, tokenizer, text):
    """Mean loss over the second half of each stretch of CONTEXT tokens, as perplexity tools measure it: every token
    that counts has at least half a context before it."""
    ids = [tokenizer.bos_id()] + tokenizer.encode(text)
    rows = torch.tensor(ids[:len(ids) // CONTEXT * CONTEXT]).view(-1, CONTEXT)
    total, count, half = 0.0, 0, CONTEXT // 2
    with torch.no_grad():
        for batch in rows.split(16):
            batch = batch.clone()
            batch[:, 0] = tokenizer.bos_id()
            logits = forward(torch, config, weights, tables, batch)[:, half:-1].flatten(0, 1)
            targets = batch[:, half + 1:].flatten()
            total += torch.nn.functional.cross_entropy(logits, targets, reduction="sum").item()
            count += len(targets)
    return total / count


def greedy(torch, config, weights, tables, tokenizer, prompt):
    """The prompt and the likeliest tokens after it, up to the end of the story or of the context."""
    ids = [tokenizer.bos_id()] + tokenizer.encode(prompt)
    with torch.no_grad():
        while len(ids) < CONTEXT and ids[-1] != tokenizer.eos_id():
            ids.append(forward(torch, config, weights, tables, torch.tensor([ids]))[0, -1].argmax().item())
    return tokenizer.decode(ids)


def learning_rate(peak, step, progress):
    """A hundred steps of warm-up, then half a cosine down to nothing. progress goes from 0 to 1."""
    return peak * min(1.0, (step + 1) / 100) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, progress)))


def train(args, corpus, heldout, tokenizer):
    """Trained weights rounded to bfloat16, and their loss on the held-out text."""
    import torch

    torch.set_num_threads(args.threads)
    generator = torch.Generator().manual_seed(args.seed)
    weights = initial_weights(torch, CONFIG, generator)
    for weight in weights.values():
        weight.requires_grad_()
    tables = rotary_tables(torch, CONFIG)
    groups = [
        {"params": [w for w in weights.values() if w.dim() > 1], "weight_decay": 0.1},
        {"params": [w for w in weights.values() if w.dim() == 1], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=args.rate, betas=(0.9, 0.95), fused=True)
    bfloat16 = faster_in_bfloat16(torch)
    print(f"{sum(w.numel() for w in weights.values())} weights, bfloat16 arithmetic: {bfloat16}", flush=True)
    rows = training_rows(torch, tokenizer, corpus, generator)
    start, step = time.time(), 0
    while True:
        progress = (time.time() - start) / 60 / args.minutes if args.minutes else step / args.steps
        if progress >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(args.rate, step, progress)
        batch = torch.stack([next(rows) for _ in range(args.batch)])
        if progress < ECHO_UNTIL:
            # Text that is said twice: its second half is copied, names and all, and copying is what a small model
            # finds last in text that is said once.
            half = CONTEXT // 2
            batch[: args.batch // 4, half + 1:] = batch[: args.batch // 4, 1:half + 1]
        with torch.autocast("cpu", torch.bfloat16, enabled=bfloat16):
            logits = forward(torch, CONFIG, weights, tables, batch[:, :-1])
        loss = torch.nn.functional.cross_entropy(logits.float().flatten(0, 1), batch[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(list(weights.values()), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step}, {time.time() - start:.0f} s, training loss {loss.item():.4f}", flush=True)
        step += 1
    print(f"{step} steps in {(time.time() - start) / 60:.1f} minutes")
    rounded = {name: weight.detach().bfloat16() for name, weight in weights.items()}
    # What is measured is what is saved, in float32 arithmetic.
    weights = {name: weight.float() for name, weight in rounded.items()}
    loss = heldout_loss(torch, CONFIG, weights, tables, tokenizer, joined(heldout))
    print(f"held-out loss {loss:.4f}, perplexity {math.exp(loss):.4f}")
    for prompt in ("Once a girl called Mira", "Tom was a boy from"):
        print("greedy:", greedy(torch, CONFIG, weights, tables, tokenizer, prompt))
    return rounded, loss


# ---------------------------------------------------------------------------------------------------------------
# Files

README = """---
license: mit
language:
- en
library_name: transformers
pipeline_tag: text-generation
tags:
- llama
- tiny
- synthetic
---

# A demo model that writes small stories

A Llama model of {weights:.1f} million weights ({layers} layers of {hidden}, vocabulary {vocab}, context {context}) for
trying out conversion and quantization. It is small enough to live in a repository, and trained, so a worse quantization
gives a measurably worse model.

It writes stories of the kind it was trained on, about people in invented towns who lend, lose, mend and trade
things, and nothing else. It keeps to its names, and mixes up colours and who owns what. It is of
no other use.

`scripts/make_demo_model.py` makes everything: the training text comes from a grammar in the script, the tokenizer and
the weights from that text. No other text or model went into it.

On `heldout.txt`, stories it was not trained on, its perplexity per token is {perplexity:.3f} (stretches of
{context} tokens, the second half of each counted). A model that guessed evenly would have {vocab}.
"""


def json_text(value):
    return json.dumps(value, indent=2) + "\n"


def fixed_files(seed):
    """The files that are the same bytes everywhere, under their names in DIR."""
    heldout, calibration = texts(seed)
    files = {"heldout.txt": joined(heldout), "calibration.txt": joined(calibration)}
    files["model/config.json"] = json_text(CONFIG)
    files["model/generation_config.json"] = json_text({"bos_token_id": 1, "eos_token_id": 2, "max_length": CONTEXT})
    for name, value in tokenizer_files().items():
        files["model/" + name] = json_text(value)
    return files


def make(args):
    # Threads that spin while they wait for each other are several times slower when another program needs the
    # processor. OpenMP reads this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Here, so that --check needs none of them.
    import safetensors.torch
    import sentencepiece

    heldout, calibration = texts(args.seed)
    apart, corpus = set(heldout + calibration), []
    for story in stories(args.seed * 1000 + 3):
        if story not in apart:
            corpus.append(story)
            if len(corpus) == TRAINING_STORIES:
                break
    model = args.out / "model"
    model.mkdir(parents=True, exist_ok=True)
    for name, text in fixed_files(args.seed).items():
        (args.out / name).write_bytes(text.encode())
    pieces = train_tokenizer(corpus[:TOKENIZER_STORIES])
    (model / "tokenizer.model").write_bytes(pieces)
    tokenizer = sentencepiece.SentencePieceProcessor(model_proto=pieces)
    for name, part in (("held-out", heldout), ("calibration", calibration)):
        print(f"{name} text: {len(part)} stories, {len(tokenizer.encode(joined(part)))} tokens")
    weights, loss = train(args, corpus, heldout, tokenizer)
    (model / "model.safetensors").write_bytes(safetensors.torch.save(weights, metadata={"format": "pt"}))
    text = README.format(
        weights=sum(w.numel() for w in weights.values()) / 1e6, layers=CONFIG["num_hidden_layers"],
        hidden=CONFIG["hidden_size"], vocab=VOCAB, context=CONTEXT, perplexity=math.exp(loss),
    )
    (model / "README.md").write_bytes(text.encode())


def piece_count(data):
    """How many pieces a SentencePiece model has: its messages under field 1 (protocol buffers' wire format)."""

    def varint(at):
        value = shift = 0
        while True:
            byte = data[at]
            value |= (byte & 127) << shift
            at, shift = at + 1, shift + 7
            if byte < 128:
                return value, at

    at = count = 0
    while at < len(data):
        key, at = varint(at)
        if key & 7 != 2:
            raise ValueError("not a SentencePiece model")
        length, at = varint(at)
        at += length
        count += key >> 3 == 1
    if at != len(data):
        raise ValueError("the SentencePiece model is cut short")
    return count


def safetensors_problem(data, shapes):
    """What is wrong with the weights' file, or None."""
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8:8 + length])
    if header.pop("__metadata__", None) != {"format": "pt"}:
        return "its metadata is not that of PyTorch weights"
    if set(header) != set(shapes):
        return f"its tensors are not those of config.json: {sorted(set(header) ^ set(shapes))}"
    end = 0
    for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        size = 2 * math.prod(shapes[name])
        found = entry["dtype"], tuple(entry["shape"]), entry["data_offsets"]
        if found != ("BF16", shapes[name], [end, end + size]):
            return f"{name} is {entry}, not {shapes[name]} in BF16 at {end}"
        end += size
    if 8 + length + end != len(data):
        return f"it has {len(data)} bytes, not {8 + length + end}"
    # A weight whose exponent is all ones is infinite or not a number. Its upper byte is the second one.
    for low, high in zip(data[8 + length::2], data[9 + length::2]):
        if high & 127 == 127 and low & 128:
            return "it has a weight that is not finite"
    return None


def check(folder, seed):
    """Compares the committed files with what this script makes; the problems found."""
    problems = []
    for name, text in fixed_files(seed).items():
        # Bytes, so that a changed line ending is found too.
        if (folder / name).read_bytes() != text.encode():
            problems.append(f"{name} is not what this script writes")
    count = piece_count((folder / "model/tokenizer.model").read_bytes())
    if count != CONFIG["vocab_size"]:
        problems.append(f"model/tokenizer.model has {count} pieces, not {CONFIG['vocab_size']}")
    problem = safetensors_problem((folder / "model/model.safetensors").read_bytes(), tensor_shapes(CONFIG))
    if problem:
        problems.append(f"model/model.safetensors: {problem}")
    if not (folder / "model/README.md").read_text().startswith("---\n"):
        problems.append("model/README.md has no front matter")
    return problems


def main():
    parser = argparse.ArgumentParser(description="Makes the demo model, or checks it.")
    demo = pathlib.Path(__file__).resolve().parent.parent / "demo"
    parser.add_argument("--out", type=pathlib.Path, default=demo, metavar="DIR", help="where the files go")
    parser.add_argument("--check", type=pathlib.Path, metavar="DIR", help="compare DIR with what this script makes")
    parser.add_argument("--stories", type=int, metavar="N", help="print N stories and stop")
    parser.add_argument("--seed", type=int, default=SEED)
    parser.add_argument("--steps", type=int, default=3600)
    parser.add_argument("--minutes", type=float, help="train for so long, however many steps that makes")
    parser.add_argument("--batch", type=int, default=8, help="rows to a step")
    parser.add_argument("--rate", type=float, default=2e-3, help="the highest learning rate")
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    if args.stories is not None:
        told = stories(args.seed)
        print(joined([next(told) for _ in range(args.stories)]), end="")
    elif args.check:
        try:
            problems = check(args.check, args.seed)
        except (OSError, ValueError, LookupError, struct.error) as error:
            problems = [f"{type(error).__name__}: {error}"]
        for problem in problems:
            print(problem, file=sys.stderr)
        if problems:
            sys.exit(1)
        print(f"{args.check} is what this script makes")
    else:
        make(args)


if __name__ == "__main__":
    main()
