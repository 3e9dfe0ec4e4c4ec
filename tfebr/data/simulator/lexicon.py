"""The words of the shop: departments, category groups, leaf categories with their names, and attribute values.

`#` opens a department, `+` a group of leaf categories; both list their hypernyms. A leaf line reads
`name: nouns, most used first; median price; attribute kinds`. A noun that stands under several leaves is ambiguous.
"""

import dataclasses

_SHOP = """
# Electronics: electronics, gadgets, tech
+ audio, sound system
headphones: headphones, earphones, headset; 60; colour connection use
speakers: speaker, soundbar, loudspeaker; 90; colour connection watts
televisions: television, tv, telly; 450; inches style
microphones: microphone, mic; 70; colour connection
+ photo, photography
cameras: camera, camcorder; 380; colour use
camera tripods: tripod, camera stand; 40; material use
memory cards: memory card, sd card; 22; storage
phones: smartphone, phone, mobile, cellphone; 420; colour storage
phone cases: phone case, case, phone cover; 15; colour material pattern
chargers: charger, power adapter; 20; colour connection watts
# Computers: computers, pc, computing
+ computer accessories, peripherals
computer mice: mouse, mice; 25; colour connection use
computer keyboards: keyboard, typing keyboard; 50; colour connection use
monitors: monitor, display, screen; 220; inches use
webcams: webcam, web camera; 45; colour connection
+ portable computers
laptops: laptop, notebook, ultrabook; 780; colour storage use
tablets: tablet, tablet pc; 300; colour storage
hard drives: hard drive, hdd, external drive; 80; storage connection
routers: router, modem, wifi box; 85; connection use
printers: printer, inkjet; 130; colour connection
# Kitchen: kitchenware, cookware
+ kitchen appliances
refrigerators: refrigerator, fridge, icebox; 650; colour style
microwaves: microwave, microwave oven; 120; colour watts
coffee makers: coffee maker, coffee machine, espresso machine; 95; colour watts style
blenders: blender, smoothie maker, liquidizer; 60; colour watts
kettles: kettle, water boiler; 35; colour material watts
toasters: toaster, bread toaster; 40; colour watts
+ tableware, dining
drinking glasses: glasses, tumbler, drinking glass; 20; volume pack style
mugs: mug, cup, coffee cup; 12; colour volume material
plates: plate, dinner plate, dishes; 25; colour material pack
frying pans: frying pan, skillet, fry pan; 38; material inches
kitchen knives: kitchen knife, chef knife; 45; material inches
# Home: household, homeware
+ furniture
sofas: sofa, couch, settee; 700; colour material style
dining tables: dining table, table; 320; material style
office chairs: office chair, desk chair; 160; colour material
bookcases: bookcase, bookshelf, shelving unit; 110; colour material style
wardrobes: wardrobe, closet, armoire; 340; colour material style
+ bedding, linens
pillow cases: pillow case, case, pillowcase; 15; colour material pattern
duvet covers: duvet cover, cover, quilt cover; 45; colour material pattern
mattresses: mattress, bed mattress; 390; bedsize material
curtains: curtains, drapes; 40; colour material pattern
lamps: lamp, light, desk lamp; 38; colour watts style
light bulbs: light bulb, bulb, led; 9; watts pack
vacuum cleaners: vacuum cleaner, vacuum, hoover; 170; colour connection watts
clothes irons: iron, steam iron; 40; colour watts
# Clothing: clothing, apparel, clothes, fashion
+ tops
t-shirts: t-shirt, tee, tshirt; 18; colour size audience
sweaters: sweater, jumper, pullover; 45; colour size material
shirts: shirt, button down; 35; colour size pattern
jackets: jacket, coat, blazer; 95; colour size audience
dresses: dress, gown, frock; 60; colour size pattern
jeans: jeans, denims; 55; colour size audience
trousers: trousers, pants, slacks; 48; colour size material
swim trunks: swim trunks, trunks, swim shorts; 28; colour size pattern
socks: socks, stockings; 10; colour material pack
+ fashion accessories
ties: tie, necktie; 22; colour material pattern
scarves: scarf, shawl, wrap; 25; colour material pattern
sunglasses: sunglasses, glasses, shades; 60; colour style audience
# Shoes: footwear, shoes
+ athletic shoes
running shoes: running shoes, sneakers, trainers; 85; colour audience shoesize
hiking boots: hiking boots, boots, walking boots; 120; colour audience shoesize
football boots: football boots, cleats, soccer shoes; 75; colour audience shoesize
+ dress shoes
heels: high heels, heels, pumps, stilettos; 70; colour material shoesize
loafers: loafers, slip ons, moccasins; 75; colour material shoesize
sandals: sandals, flip flops; 30; colour audience shoesize
slippers: slippers, house shoes; 22; colour audience shoesize
# Beauty: beauty, cosmetics, toiletries
+ skincare, skin care
moisturizers: moisturizer, face cream, lotion; 24; scent skin volume
face masks: face mask, mask, sheet mask; 12; skin pack scent
sunscreens: sunscreen, sunblock, spf; 18; skin volume
+ makeup, make up
lipsticks: lipstick, lip color; 16; colour style
nail polishes: nail polish, nails, nail varnish; 9; colour pack
mascaras: mascara, lash makeup; 15; colour style
shampoos: shampoo, hair wash; 11; scent volume
hair brushes: hair brush, brush, hairbrush; 13; colour material
perfumes: perfume, fragrance, cologne; 65; scent volume audience
# Grocery: grocery, food
+ snacks
potato chips: potato chips, chips, crisps; 4; flavour diet pack
cookies: cookies, biscuits; 5; flavour diet pack
snack bars: snack bar, bar, granola bar; 8; flavour diet pack
chocolates: chocolate, candy, sweets; 7; flavour diet weight
+ drinks, beverages
coffees: coffee, java, coffee beans; 13; flavour weight diet
teas: tea, tea bags; 7; flavour pack diet
soft drinks: soda, soft drink, pop; 6; flavour volume pack
+ fruit, fresh produce
apples: apple, eating apple; 4; colour diet weight
berries: berry, blackberry, mixed berries; 6; diet weight
+ pantry, dry food
rice: rice, basmati, grains; 8; diet weight
pasta: pasta, spaghetti, noodles; 3; diet weight
# Sports: sports gear, sporting goods
+ fitness, gym equipment
dumbbells: dumbbell, free weights, hand weights; 45; weight material
yoga mats: yoga mat, exercise mat, mat; 28; colour material
resistance bands: resistance band, band, exercise band; 17; colour pack
treadmills: treadmill, running machine; 690; watts use
+ camping, camping gear
tents: tent, shelter; 140; colour persons
sleeping bags: sleeping bag, bedroll; 65; colour season
backpacks: backpack, rucksack, bag; 55; colour audience use
+ cycling
bicycles: bicycle, bike, cycle; 420; colour audience use
bike pumps: bike pump, pumps, tyre pump; 22; colour material
bike helmets: bike helmet, helmet; 48; colour size audience
golf clubs: golf club, iron, golf iron; 150; material audience
# Toys: toys, playthings
+ games
board games: board game, tabletop game; 32; audience persons
puzzles: puzzle, jigsaw; 16; audience pieces
building blocks: building blocks, bricks, blocks; 40; audience pieces
dolls: doll, fashion doll; 25; colour audience
plush toys: plush toy, stuffed animal, soft toy; 19; colour size
+ baby, nursery
strollers: stroller, pushchair, buggy, pram; 230; colour style
baby monitors: baby monitor, monitor; 80; connection inches
diapers: diapers, nappies; 30; size pack
musical keyboards: keyboard, digital piano, synth; 180; colour use
guitars: guitar, acoustic guitar; 210; colour material
# Pets and Garden: pet supplies, garden supplies
+ cat supplies, dog supplies
cat toys: cat toy, mouse, catnip toy; 8; colour material
dog food: dog food, kibble, dog chow; 38; flavour weight diet
dog beds: dog bed, pet bed; 42; colour size material
dog leashes: dog leash, lead, dog lead; 15; colour material
+ gardening
lawn mowers: lawn mower, grass cutter; 290; connection watts
garden hoses: garden hose, hosepipe, hose; 35; colour material
plant pots: plant pot, planter, flower pot; 18; colour material inches
flowers: flower, lily, bouquet; 25; colour pack
# Tools and Car: hardware, diy
+ tools, power tools
drills: drill, drill driver; 95; connection watts
screwdrivers: screwdriver, turnscrew; 18; material pack
fasteners: bolt, nails, screws; 9; material pack inches
paint brushes: paint brush, brush, paintbrush; 10; material pack
paints: paint, emulsion; 32; colour volume
+ car parts, auto parts
car covers: car cover, cover; 70; colour material
car batteries: car battery, battery; 110; watts
car tyres: tyre, tire, wheel tyre; 95; inches season
car seats: car seat, child seat; 150; colour audience
# Health and Travel: health, travel gear
+ health care
vitamins: vitamins, tablet, supplements; 19; flavour pack diet
blood pressure monitors: blood pressure monitor, monitor, bp meter; 45; style connection
thermometers: thermometer, fever meter; 20; style audience
+ luggage, travel bags
suitcases: suitcase, case, trunk, carry on; 120; colour material size
travel pillows: travel pillow, neck pillow; 20; colour material
watches: watch, wristwatch, timepiece; 130; colour material audience
watch bands: watch band, band, watch strap; 18; colour material
"""

# "/" separates spellings of one value; the first is the usual one.
_KINDS = {
    "type": "mini, portable, heavy duty, deluxe, folding, smart, eco friendly, handmade, ergonomic, foldaway, junior, compact",
    "colour": "black, white, grey/gray, navy/dark blue, red, blue, green, silver, brown/tan, pink, gold, beige/cream, purple, yellow",
    "material": "cotton, leather, steel/stainless, wooden/wood, plastic, bamboo, wool, silk, linen, aluminium/aluminum, rubber, polyester",
    "size": "medium, large, small, xl/extra large, xs, xxl/2xl",
    "shoesize": "size 9, size 8, size 10, size 7, size 11, size 6, size 12",
    "bedsize": "queen, king, double/full, single/twin",
    "volume": "12oz/12 oz, 16oz/16 oz, 500ml/500 ml, 8oz/8 oz, 32oz/32 oz, 1l/1 litre",
    "weight": "5lb/5 lb, 2lb/2 lb, 10lb/10 lb, 1kg/1 kg, 20lb/20 lb, 500g/500 gram",
    "inches": "32in/32 inch, 24in/24 inch, 12in/12 inch, 10in/10 inch, 55in/55 inch, 65in/65 inch",
    "watts": "60w/60 watt, 100w/100 watt, 40w/40 watt, 500w/500 watt, 1000w/1000 watt, 18v/18 volt",
    "storage": "128gb/128 gb, 256gb/256 gb, 64gb/64 gb, 512gb/512 gb, 1tb/1 tb",
    "connection": "wireless/cordless, bluetooth, usb, wired/corded",
    "use": "outdoor, office, travel, gaming, home, professional/pro, garden/yard",
    "audience": "mens/men, womens/ladies, kids/children, unisex, boys, girls, toddler",
    "pattern": "plain/solid, striped/stripes, floral, checked/plaid, polka dot, camo/camouflage",
    "flavour": "chocolate, vanilla, original, strawberry, salted, spicy/hot, mint, honey",
    "diet": "organic/bio, gluten free, vegan, sugar free, low fat",
    "scent": "lavender, rose, citrus, unscented/fragrance free, coconut",
    "skin": "dry skin, sensitive, oily skin, anti aging",
    "pack": "2 pack/2pk, 4 pack/4pk, 6 pack/6pk, 12 pack/dozen, 24 pack",
    "style": "modern, classic, vintage/retro, rustic, slim, digital",
    "season": "winter, summer, all season",
    "persons": "4 person, 2 person, 6 person, family",
    "pieces": "100 piece/100pc, 500 piece/500pc, 1000 piece/1000pc, 50 piece/50pc",
}

# Brands that are also ordinary nouns of another department, as with the fruit and the phone.
AMBIGUOUS_BRANDS = {"apple": "Electronics", "blackberry": "Electronics", "lily": "Beauty", "bolt": "Sports", "buggy": "Shoes"}
TITLE_FILLERS = ("new", "free shipping", "best seller", "gift", "2024", "premium quality", "official", "hot sale", "upgraded", "set")
QUERY_FILLERS = ("best", "cheap", "buy", "sale", "new", "online", "good")


@dataclasses.dataclass(frozen=True)
class Leaf:
    """A leaf category: indexes of its department and group, its nouns (most used first), median price and attribute kinds."""

    name: str
    department: int
    group: int
    nouns: tuple[str, ...]
    price: float
    kinds: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Lexicon:
    """The parsed word lists; `department_hypernyms[d]`, `group_hypernyms[g]`; `kinds[name][value]` holds a value's spellings."""

    departments: tuple[str, ...]
    department_hypernyms: tuple[tuple[str, ...], ...]
    group_hypernyms: tuple[tuple[str, ...], ...]
    leaves: tuple[Leaf, ...]
    kinds: dict[str, tuple[tuple[str, ...], ...]]


def read_lexicon() -> Lexicon:
    """Parses the word lists of this module."""
    departments: list[str] = []
    department_hypernyms, group_hypernyms = [], []
    leaves: list[Leaf] = []
    for line in _SHOP.strip().splitlines():
        if line.startswith("#"):
            name, hypernyms = line[1:].split(":")
            departments.append(name.strip())
            department_hypernyms.append(_split(hypernyms, ","))
        elif line.startswith("+"):
            group_hypernyms.append(_split(line[1:], ","))
        else:
            name, rest = line.split(":")
            nouns, price, kinds = rest.split(";")
            leaves.append(
                Leaf(name, len(departments) - 1, len(group_hypernyms) - 1, _split(nouns, ","), float(price), tuple(kinds.split()))
            )
    values = {kind: tuple(_split(value, "/") for value in _split(text, ",")) for kind, text in _KINDS.items()}
    return Lexicon(tuple(departments), tuple(department_hypernyms), tuple(group_hypernyms), tuple(leaves), values)


def _split(text: str, by: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(by))
